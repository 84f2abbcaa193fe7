"""The house: one arrow of imports, short files, SQL in one place, a service without torch."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON_FILES = sorted(
    path
    for folder in ("service", "worker", "clients", "tests", "demo", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if "build" not in path.relative_to(ROOT).parts
)
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "accelerate", "vllm"}
WEB = {"fastapi", "starlette", "uvicorn"}
FORBIDDEN_NAMES = {"utils", "common", "helpers", "base", "core", "manager"}


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Every module that `path` imports, `from a import b` counted as `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def files(folder: str) -> list[Path]:
    return [path for path in PYTHON_FILES if path.is_relative_to(ROOT / folder)]


def offenders(paths: list[Path], banned: set[str], allowed: frozenset[str] = frozenset()) -> list:
    return [
        (module_name(path), name)
        for path in paths
        for name in sorted(imports(path))
        if within(name, banned) and not within(name, set(allowed))
    ]


def test_laws_import_only_mathematics() -> None:
    stdlib = sys.stdlib_module_names
    for path in files("service/laws"):
        for name in imports(path):
            top = name.split(".")[0]
            assert top in stdlib or top in {"numpy", "scipy"} or within(name, {"service.laws"}), (
                f"{module_name(path)} imports {name}"
            )


def test_service_never_imports_worker_or_torch() -> None:
    assert offenders(files("service"), HEAVY | {"worker", "forgetting_client"}) == []


def test_worker_never_imports_the_web_half() -> None:
    web = WEB | {"service.app", "service.routes", "service.problems", "service.auth"}
    assert offenders(files("worker"), web | {"forgetting_client"}) == []


def test_client_knows_only_http() -> None:
    assert offenders(files("clients"), HEAVY | WEB | {"service", "worker", "sqlalchemy"}) == []


def test_the_walk_sees_a_breach(tmp_path: Path) -> None:
    breach = tmp_path / "breach.py"
    breach.write_text("def f():\n    from worker import run\n    import torch.nn\n")
    assert imports(breach) == {"worker", "worker.run", "torch.nn"}
    assert within("torch.nn", HEAVY)


def test_service_starts_without_torch() -> None:
    """The whole web half is importable where every heavy package is missing."""
    code = (
        "import sys\n"
        f"for name in {sorted(HEAVY | {'worker'})!r}:\n"
        "    sys.modules[name] = None\n"
        "import service.app, service.command, service.sweep, service.admission\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)


def test_service_dependencies_are_light() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[<>=! ]", line)[0] for line in project["dependencies"]}
    assert not names & HEAVY


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_named_for_a_noun_or_verb(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300
    assert path.stem not in FORBIDDEN_NAMES
    assert path.parent.name not in FORBIDDEN_NAMES
    if not path.is_relative_to(ROOT / "tests"):
        assert path.stem not in sys.stdlib_module_names or path.parent != ROOT


def test_sql_lives_in_the_store() -> None:
    statement = re.compile(r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM)\b")
    for path in files("service") + files("worker"):
        home = path.is_relative_to(ROOT / "service" / "store")
        if home or path.is_relative_to(ROOT / "service" / "migrations"):
            continue
        if path.name not in {"columns.py", "tables.py"}:
            used = {name for name in imports(path) if within(name, {"sqlalchemy"})}
            assert used <= {"sqlalchemy.exc", "sqlalchemy.exc.SQLAlchemyError"}, path
        assert not statement.search(path.read_text()), path


BROAD = [
    "forgetting_client.command",  # Python's exit code of a fault, 1, would be a verdict
    "forgetting_client.command.gate_local",  # the worker's fault cannot be imported by name
    "worker.tasks",
]


def test_broad_excepts_are_few() -> None:
    broad = [
        module_name(path).removeprefix("clients.python.")
        for path in files("service") + files("worker") + files("clients")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"})
        )
    ]
    assert sorted(broad) == BROAD


def test_every_dependency_is_pinned_and_explained() -> None:
    pins = {
        re.split(r"[=<>]", line)[0].lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    for manifest in ("pyproject.toml", "clients/python/pyproject.toml"):
        project = tomllib.loads((ROOT / manifest).read_text())["project"]
        extras = project.get("optional-dependencies", {})
        wanted = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
        for line in wanted:
            name = re.split(r"[\[<>=! ]", line)[0]
            assert f"| {name} " in reasons, f"docs/dependencies.md has no reason for {name}"
            if not name.startswith("vllm"):
                assert name.lower() in pins, f"constraints.txt does not pin {name}"
