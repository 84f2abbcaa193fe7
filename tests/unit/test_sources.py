"""Names and where they lead: never out of the roots."""

from pathlib import Path

import pytest

from service.errors import (
    AdapterUnreadable,
    CorpusUnreadable,
    DatasetUnreadable,
    ModelUnavailable,
    PathNotAllowed,
)
from service.settings import Settings
from service.sources import (
    HubModel,
    is_hub_id,
    is_wikitext,
    model_files,
    resolve_file,
    resolve_folder,
    resolve_model,
)
from tests.model_folders import POSITIONS, VOCABULARY, write_model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.jsonl").write_text("{}")
    (root / "sub" / "b.jsonl").write_text("{}")
    (tmp_path / "outside.jsonl").write_text("{}")
    return root


def test_names_under_a_root(root: Path) -> None:
    def found(name: str) -> Path:
        return resolve_file(name, [root.parent / "absent", root], param="dataset.path")

    assert found("a.jsonl") == root / "a.jsonl"
    assert found("sub/b.jsonl") == root / "sub" / "b.jsonl"
    assert found("./a.jsonl") == root / "a.jsonl"
    assert found(str(root / "a.jsonl")) == root / "a.jsonl"


@pytest.mark.parametrize(
    "name", ["../outside.jsonl", "sub/../a.jsonl", "..", "/etc/passwd", "/", "/nowhere/at/all"]
)
def test_names_that_leave(root: Path, name: str) -> None:
    with pytest.raises(PathNotAllowed) as caught:
        resolve_file(name, [root], param="dataset.path")
    assert caught.value.param == "dataset.path"


def test_links_are_followed_inside_only(root: Path) -> None:
    (root / "inner.jsonl").symlink_to(root / "a.jsonl")
    (root / "outer.jsonl").symlink_to(root.parent / "outside.jsonl")
    (root / "parent").symlink_to(root.parent)
    (root / "loop").symlink_to(root / "loop")
    assert resolve_file("inner.jsonl", [root], param="dataset.path") == root / "a.jsonl"
    for name in ("outer.jsonl", "parent/outside.jsonl", str(root / "outer.jsonl")):
        with pytest.raises(PathNotAllowed):
            resolve_file(name, [root], param="dataset.path")
    with pytest.raises(DatasetUnreadable):
        resolve_file("loop", [root], param="dataset.path")


def test_a_root_may_itself_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    link = tmp_path / "link"
    assert resolve_file("a.jsonl", [link], param="dataset.path") == root / "a.jsonl"
    assert resolve_file(str(link / "a.jsonl"), [link], param="dataset.path") == root / "a.jsonl"


@pytest.mark.parametrize(
    ("param", "error"),
    [
        ("dataset.path", DatasetUnreadable),
        ("evaluation.corpus", CorpusUnreadable),
        ("adapters.0.path", AdapterUnreadable),
        ("base_model", ModelUnavailable),
    ],
)
def test_what_is_absent_has_the_error_of_its_field(
    root: Path, param: str, error: type[Exception]
) -> None:
    for name in ("absent", "sub", "x" * 5000, str(root / "absent")):
        with pytest.raises(error):
            resolve_file(name, [root], param=param)
    variable = "MODEL" if param in ("base_model", "adapters.0.path") else "DATA"
    with pytest.raises(error, match=f"no root is configured.*FORGETTING_{variable}_ROOTS"):
        resolve_file("a.jsonl", [], param=param)
    with pytest.raises(PathNotAllowed, match=f"set FORGETTING_{variable}_ROOTS"):
        resolve_file(str(root / "a.jsonl"), [], param=param)


def test_models_are_folders_first_and_hub_ids_second(root: Path) -> None:
    write_model(root / "org" / "local")
    settings = Settings(model_roots=[root])
    assert resolve_model("org/local", None, settings) == root / "org" / "local"
    assert resolve_model("org/remote", "main", settings) == HubModel("org/remote", "main")
    closed = settings.model_copy(update={"allow_hub": False})
    with pytest.raises(ModelUnavailable, match="switched off"):
        resolve_model("org/remote", None, closed)
    for name in ("remote", "a.jsonl", "a/b/c"):
        with pytest.raises(ModelUnavailable):
            resolve_model(name, None, settings)


def test_a_folder_must_keep_its_files_inside(root: Path) -> None:
    folder = root / "model"
    folder.mkdir()
    (folder / "weights.bin").symlink_to(root.parent / "outside.jsonl")
    with pytest.raises(PathNotAllowed, match=r"weights\.bin"):
        resolve_folder("model", [root], param="adapters.0.path")


def test_snapshots_that_link_into_their_own_root(root: Path) -> None:
    """The hub's cache keeps blobs beside snapshots that link to them."""
    blob = write_model(root / "blobs") / "model.safetensors"
    snapshot = root / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to(root / "blobs" / "config.json")
    (snapshot / "model.safetensors").symlink_to(blob)
    found = resolve_model("snapshots/abc", None, Settings(model_roots=[root]))
    assert model_files(found).vocabulary == VOCABULARY


def test_model_files(root: Path) -> None:
    files = model_files(write_model(root / "model"))
    assert files.vocabulary == VOCABULARY
    assert files.max_positions == POSITIONS
    assert files.tensors["model.embed_tokens.weight"].shape == (64, 16)
    assert files.tensors["model.embed_tokens.weight"].dtype == "F32"
    assert files.quantized is False


def test_the_demo_base(tiny_base: Path) -> None:
    if not (tiny_base / "config.json").exists():
        pytest.skip("demo/tiny_base is not there")
    files = model_files(tiny_base)
    assert files.vocabulary == 1024
    assert files.max_positions


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("Qwen/Qwen3-0.6B", True),
        ("Open-Orca/OpenOrca", True),
        ("gpt2", False),
        ("a/b/c", False),
        ("/a/b", False),
        ("../a", False),
        ("a/..", False),
        ("a b/c", False),
    ],
)
def test_hub_ids(name: str, is_one: bool) -> None:
    assert is_hub_id(name) is is_one


def test_the_alias() -> None:
    assert is_wikitext("wikitext-103")
    assert not is_wikitext("wikitext-103-raw-test.txt")
