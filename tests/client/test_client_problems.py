"""What the client makes of refusals, and of things that are no forgetting service."""

import httpx2
import pytest
from forgetting_client import ForgettingClient, errors

PROBLEM = {
    "type": "/v1/problems/dataset_unreadable",
    "title": "Dataset unreadable",
    "status": 422,
    "detail": "line 7 is not JSON",
    "instance": "/v1/jobs",
    "code": "dataset_unreadable",
    "param": "dataset.path",
    "request_id": "req_1",
    "errors": [{"param": "dataset.path", "message": "line 7 is not JSON", "type": "value"}],
    "details": {"line": 7},
}


def problem(status=422, **changes):
    return httpx2.Response(status, json={**PROBLEM, "status": status, **changes})


def test_a_problem_becomes_its_class_with_everything_it_said(scripted) -> None:
    client, _ = scripted(problem())
    with pytest.raises(errors.DatasetUnreadable) as caught:
        client.create_job({})
    error = caught.value
    assert str(error) == error.detail == "line 7 is not JSON"
    assert (error.status, error.code, error.param) == (422, "dataset_unreadable", "dataset.path")
    assert (error.request_id, error.details) == ("req_1", {"line": 7})
    assert error.errors == PROBLEM["errors"]


@pytest.mark.parametrize(("status", "kind"), [(418, errors.Rejected), (500, errors.ServiceFault)])
def test_a_code_from_a_newer_service_keeps_its_name(scripted, status, kind) -> None:
    client, _ = scripted(problem(status, code="tea_only"))
    with pytest.raises(kind) as caught:
        client.job("job_1")
    assert caught.value.code == "tea_only"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>404</html>", b"[1, 2]", b'"text"', b"{", b"\xff\xfe\x00", b'{"code": 7}', b"{}"],
)
def test_a_body_that_is_no_problem_names_the_address(scripted, body) -> None:
    client, _ = scripted(httpx2.Response(404, content=body))
    with pytest.raises(errors.Rejected, match="not with a problem") as caught:
        client.job("job_1")
    assert "http://service.test/v1/jobs/job_1 answered 404" in caught.value.detail
    assert caught.value.code == "http_404"


def test_fields_of_the_wrong_type_do_no_harm(scripted) -> None:
    client, _ = scripted(problem(param=["x"], request_id=3, errors="no", details=[1]))
    with pytest.raises(errors.DatasetUnreadable) as caught:
        client.job("job_1")
    assert (caught.value.param, caught.value.request_id) == (None, None)
    assert (caught.value.errors, caught.value.details) == ([], {})


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, html="<p>hello</p>"),
        httpx2.Response(200, json=[1]),
        httpx2.Response(204),
        httpx2.Response(302, headers={"location": "https://elsewhere.test/"}),
    ],
)
def test_a_success_that_is_not_ours_is_said_so(scripted, answer) -> None:
    client, _ = scripted(answer)
    with pytest.raises(errors.UnexpectedReply, match=r"http://service\.test/v1/jobs/job_1"):
        client.job("job_1")


def test_a_page_without_data_is_said_so(scripted) -> None:
    client, _ = scripted(httpx2.Response(200, json={"items": []}))
    with pytest.raises(errors.UnexpectedReply, match="`data`"):
        list(client.jobs())


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "/v1", "http://user:secret@x", "http://x:99999"]
)
def test_an_address_that_cannot_work_is_refused_before_anything_is_sent(url) -> None:
    with pytest.raises(errors.Unsendable) as caught:
        ForgettingClient(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["schlüssel", "a\nb"])
def test_a_key_that_no_header_can_carry_is_refused(key) -> None:
    with pytest.raises(errors.Unsendable) as caught:
        ForgettingClient(api_key=key)
    assert key not in str(caught.value)


def test_address_and_key_come_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("FORGETTING_URL", "https://forgetting.test/prefix/")
    monkeypatch.setenv("FORGETTING_API_KEY", "  sesame\n")
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={})

    with ForgettingClient(transport=httpx2.MockTransport(answer)) as client:
        assert client.url == "https://forgetting.test/prefix"
        client.job("job_1")
    assert str(seen[0].url) == "https://forgetting.test/prefix/v1/jobs/job_1"
    assert seen[0].headers["Authorization"] == "Bearer sesame"


@pytest.mark.parametrize("given", ["", "..", "job/../1", "job 1", "?", "job_1/cancel"])
def test_what_is_no_id_is_never_sent(scripted, given, tmp_path) -> None:
    client, _ = scripted()
    for call in (client.job, client.cancel, client.delete, client.events, client.law):
        with pytest.raises(errors.Unsendable):
            list(call(given) or ())
    with pytest.raises(errors.Unsendable):
        client.download(given, "a", tmp_path)


@pytest.mark.parametrize("key", ["", "schlüssel", "a\r\nX-Other: b"])
def test_an_idempotency_key_that_no_header_can_carry_is_never_sent(scripted, key) -> None:
    client, _ = scripted()
    with pytest.raises(errors.Unsendable, match="idempotency key"):
        client.create_job({}, idempotency_key=key)


def test_pages_are_followed_to_the_limit(scripted) -> None:
    def page(ids, more):
        return httpx2.Response(200, json={"data": [{"id": i} for i in ids], "has_more": more})

    client, script = scripted(page("abc", True), page("de", True))
    found = [job["id"] for job in client.jobs(status="failed", metadata={"a": "b"}, limit=4)]
    assert found == ["a", "b", "c", "d"]
    first, second = (dict(request.url.params) for request in script.requests)
    assert first == {"status": "failed", "metadata[a]": "b", "limit": "4"}
    assert second == {**first, "limit": "1", "after": "c"}
