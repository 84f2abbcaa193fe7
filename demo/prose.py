"""The standard library's own prose. A document is one help topic or one module's docstrings.

The split goes by the document's title, so that it is the same on every Python version.
"""

import ast
import hashlib
import inspect
import json
import os
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_SHARE = 0.1
N_DOCUMENTS = 32
"""Documents of the corpus: enough for a bootstrap over documents."""
LEAST_DOCUMENTS = 12
MAX_CHARS = 1_600
"""Of one document of the corpus, so that none outweighs the others. About 600 tokens."""
MIN_CHARS = 400
SKIPPED = frozenset(
    {"__phello__", "config", "ensurepip", "encodings", "idlelib", "lib2to3", "lib-dynload"}
    | {"pydoc_data", "site-packages", "dist-packages", "test", "tests", "turtledemo"}
)
"""Folders and modules without prose, or with text that is not the library's documentation."""


class NoProse(Exception):
    """This Python came without its library's sources; the message says so."""


@dataclass(frozen=True)
class Document:
    title: str
    text: str


def documents(wanted: Callable[[str], bool] = lambda title: True) -> list[Document]:
    """Prose of the running Python's library whose title is wanted, by title.

    Sources are parsed, never imported."""
    found = [*_topics(wanted), *_modules(wanted)]
    return sorted((d for d in found if len(d.text) >= MIN_CHARS), key=lambda d: d.title)


def is_held_out(title: str) -> bool:
    """Whether the base never trains on this document."""
    digest = hashlib.sha256(title.encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64


def split() -> tuple[list[Document], list[Document]]:
    """(training, held out). Help topics quote one another, so a paragraph that stands in a
    held-out document is taken out of every training document."""
    everything = documents()
    held_out = [d for d in everything if is_held_out(d.title)]
    kept_back = {p for d in held_out for p in paragraphs(d.text)}
    training = [
        Document(d.title, "\n\n".join(p for p in paragraphs(d.text) if p not in kept_back))
        for d in everything
        if not is_held_out(d.title)
    ]
    return [d for d in training if d.text], held_out


def paragraphs(text: str) -> list[str]:
    return [p for p in (part.strip("\n") for part in text.split("\n\n")) if p.strip()]


def corpus() -> list[Document]:
    """Held-out documents on which forgetting is measured: whole paragraphs from the beginning of
    each, at most MAX_CHARS, at most N_DOCUMENTS in the order of their titles' digests."""
    cut = [Document(d.title, _beginning(d.text)) for d in documents(is_held_out)]
    long_enough = [d for d in cut if len(d.text) >= MIN_CHARS]
    long_enough.sort(key=lambda d: hashlib.sha256(d.title.encode()).digest())
    return sorted(long_enough[:N_DOCUMENTS], key=lambda d: d.title)


def write_corpus(path: Path) -> int:
    """Write the corpus as jsonl of `{title, text}`; returns the number of documents.

    Raises NoProse where that is too few.
    """
    chosen = corpus()
    if len(chosen) < LEAST_DOCUMENTS:
        raise NoProse(
            f"only {len(chosen)} documents of prose in this Python's standard library "
            f"({_library()}); the demo needs {LEAST_DOCUMENTS}. Use a Python that has its sources."
        )
    lines = (json.dumps({"title": d.title, "text": d.text}) for d in chosen)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return len(chosen)


def _beginning(text: str) -> str:
    kept: list[str] = []
    length = 0
    for paragraph in paragraphs(text):
        length += len(paragraph) + 2
        if length > MAX_CHARS:
            break
        kept.append(paragraph)
    return "\n\n".join(kept)


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _topics(wanted: Callable[[str], bool]) -> Iterator[Document]:
    """Chapters of the language reference, as `help()` shows them."""
    source = _library() / "pydoc_data" / "topics.py"
    if not source.is_file():
        return
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            for name, text in ast.literal_eval(node.value).items():
                if wanted(title := f"topic {name}"):
                    yield Document(title, text.strip())


def _modules(wanted: Callable[[str], bool]) -> Iterator[Document]:
    for name, path in _sources(_library()):
        if not wanted(title := f"module {name}"):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        yield Document(title, "\n\n".join(_docstrings(tree)))


def _sources(library: Path) -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module outside the skipped folders."""
    for folder, inside, names in os.walk(library):
        inside[:] = sorted(d for d in inside if d not in SKIPPED and not d.startswith("config-"))
        for path in sorted(Path(folder, name) for name in names if name.endswith(".py")):
            parts = path.relative_to(library).with_suffix("").parts
            if parts[-1] in SKIPPED:
                continue
            yield ".".join(parts).removesuffix(".__init__"), path


def _docstrings(tree: ast.Module) -> Iterator[str]:
    """Of the module, then of what it defines, each under the name it documents."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text and text.strip():
                name = "" if isinstance(node, ast.Module) else f"{node.name}\n"
                yield name + inspect.cleandoc(text)
