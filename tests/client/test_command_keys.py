"""`forgetting keys …` over the real application: the secret once on stdout, prose on stderr."""

import json
from collections.abc import Iterator
from typing import get_type_hints

import httpx2
import pytest
from fastapi.testclient import TestClient
from forgetting_client import errors
from forgetting_client.command.keys import Scope as Offered
from forgetting_client.key_methods import Key, NewKey
from pydantic import SecretStr

from service.app import create_app
from service.columns import epoch_now
from service.schemas import keys as wire
from service.scopes import Scope
from service.tables import keys as key_table
from tests.client.conftest import InProcess, SilentBell

ADMIN = {"FORGETTING_API_KEY": "k" * 16}


@pytest.fixture
def locked(service) -> Iterator:
    update = {"api_key": SecretStr("k" * 16), "key_pepper": SecretStr("p" * 16)}
    keyed = service.settings.model_copy(update=update)
    with TestClient(create_app(service.store, keyed, SilentBell())) as web:
        service.transport = InProcess(web)
        yield service


def create(service, *args: str):
    line = ("keys", "create", "--name", "CI of x", "--owner", "team", *args)
    return service.forgetting(*line, env=ADMIN)


def test_a_new_key_stands_alone_on_stdout_and_works(locked) -> None:
    ran = create(locked, "--scope", "jobs:read")
    assert ran.exit_code == 0, ran.stderr
    token = ran.stdout.removesuffix("\n")
    assert token.startswith("fgt_")
    assert len(token.split()) == 1
    assert token.rpartition("_")[2] not in ran.stderr
    assert "not shown again" in ran.stderr
    assert "may jobs:read" in ran.stderr
    mine = {"FORGETTING_API_KEY": token}
    assert locked.forgetting("jobs", "list", env=mine).exit_code == 0
    refused = locked.forgetting("laws", "list", env=mine)
    assert refused.exit_code == 2
    assert "laws:read" in refused.stderr


def test_the_list_has_no_secret(locked) -> None:
    token = create(locked).stdout.strip()
    for flags in ([], ["--json"]):
        listed = locked.forgetting("keys", "list", *flags, env=ADMIN)
        assert listed.exit_code == 0
        assert token.split("_", 2)[2] not in listed.output
        assert "CI of x" in listed.stdout
    [row] = json.loads(listed.stdout)
    assert row["scopes"] == ["jobs:read", "jobs:write", "laws:read", "laws:write"]
    assert row["live"]
    assert row["expires_at"] is not None


def test_a_revoked_key_opens_nothing_and_is_listed_so(locked) -> None:
    made = json.loads(create(locked, "--days", "0", "--json").stdout)
    assert made["expires_at"] is None
    ran = locked.forgetting("keys", "revoke", made["id"], env=ADMIN)
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert f"{made['id']} of team is revoked." in ran.stderr
    dead = locked.forgetting("jobs", "list", env={"FORGETTING_API_KEY": made["key"]})
    assert dead.exit_code == 2
    assert "Set FORGETTING_API_KEY" in dead.stderr
    assert "revoked" in locked.forgetting("keys", "list", env=ADMIN).stdout


def test_an_expired_key_is_listed_so(locked) -> None:
    create(locked)
    with locked.store.engine.begin() as connection:
        connection.execute(key_table.update().values(expires_at=epoch_now() - 1))
    assert " expired " in locked.forgetting("keys", "list", env=ADMIN).stdout


@pytest.mark.parametrize("line", [["list"], ["revoke", "key_01JQ0000000000000000000000"]])
def test_only_admin_may(locked, line: list[str]) -> None:
    token = create(locked).stdout.strip()
    ran = locked.forgetting("keys", *line, env={"FORGETTING_API_KEY": token})
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert "scope admin" in ran.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["create", "--name", "x"], "--owner"),
        (["create", "--name", "x", "--owner", "\x1b[31m"], "owner"),
        (["create", "--name", "x", "--owner", "y", "--scope", "everything"], "everything"),
        (["create", "--name", "x", "--owner", "y", "--days", "99999"], "expires_in_days"),
        (["revoke", "key_01JQ0000000000000000000000"], "no key"),
        (["revoke", "../jobs"], "not the id"),
    ],
)
def test_what_cannot_be_is_usage(locked, args: list[str], said: str) -> None:
    ran = locked.forgetting("keys", *args, env=ADMIN)
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert said in ran.stderr


def test_a_lost_answer_makes_no_second_key(scripted) -> None:
    client, script = scripted(httpx2.ReadError("gone"), httpx2.Response(201, json={}))
    with pytest.raises(errors.Unreachable):
        client.create_key(owner="o", name="n")
    assert script.paths() == ["POST /v1/keys"]


def test_none_is_said(locked) -> None:
    ran = locked.forgetting("keys", "list", env=ADMIN)
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert "No keys" in ran.stderr


def test_the_wire_is_the_services() -> None:
    assert get_type_hints(Key).keys() == wire.Key.model_fields.keys()
    assert get_type_hints(NewKey).keys() == wire.NewKey.model_fields.keys()
    assert {one.value for one in Offered} == {one.value for one in Scope}
