"""A place to gate in: the tiny base, some articles of WikiText in windows of 128, two adapters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.schemas.gate import GateCheck, GateResult
from service.schemas.result import Result
from service.schemas.spec import EvaluateSpec, GateSpec
from service.settings import Settings
from tests.worker.candidates_made import make_lora
from worker.run import execute

CORPUS, CONTEXT = "articles.txt", 128
CHARACTERS = 30_000
"""Of WikiText: about a hundred windows, so that a pass is seconds."""


@dataclass(frozen=True)
class Place:
    root: Path
    settings: Settings

    @classmethod
    def make(cls, root: Path, tiny_base: Path, shared_data: Path) -> "Place":
        (root / "models").mkdir()
        (root / "models" / "tiny").symlink_to(tiny_base)
        text = (shared_data / "wikitext-103-raw-test.txt").read_text()[:CHARACTERS]
        (root / CORPUS).write_text(text)
        make_lora(tiny_base, root / "models" / "mild", size=0.02)
        make_lora(tiny_base, root / "models" / "strong", size=0.05, r=2)
        settings = Settings(
            home=root / "home",
            model_roots=[root / "models", root, tiny_base.parent],
            data_roots=[root],
            allow_hub=False,
        )
        return cls(root, settings)

    def spec(self, *checks: dict[str, Any], adapter: str = "mild", **policy: Any) -> GateSpec:
        body = {
            "type": "gate",
            "base_model": "tiny",
            "adapters": [{"path": adapter}],
            "evaluation": {"corpus": CORPUS, "context": CONTEXT},
            "policy": {"checks": list(checks), **policy},
        }
        return GateSpec.model_validate(body)

    def gate(self, spec: GateSpec, name: str, *, cold: bool = False, **given: Any) -> GateResult:
        """In the folder `name`; cold: with a cache of its own, which nothing lies in."""
        settings = self.settings
        if cold:
            settings = settings.model_copy(update={"cache_dir": self.root / f"cache-{name}"})
        given = {"report": lambda event: None, **given}
        report = given.pop("report")
        found = execute(spec, self.root / name, report, settings=settings, **given)
        assert isinstance(found, GateResult)
        return found

    def measure(self, *adapters: str) -> Result:
        """The full pass of each, which also caches the base's."""
        body = {
            "type": "evaluate",
            "base_model": "tiny",
            "adapters": [{"path": adapter} for adapter in adapters],
            "evaluation": {"corpus": CORPUS, "context": CONTEXT},
        }
        spec = EvaluateSpec.model_validate(body)
        found = execute(spec, self.root / "full", lambda event: None, settings=self.settings)
        assert isinstance(found, Result)
        return found


def kl(limit: float, **more: Any) -> dict[str, Any]:
    return {"id": "kl", "metric": "kl", "fail_above": limit, **more}


def check(result: GateResult, name: str) -> GateCheck:
    return next(one for one in result.checks if one.id == name)


def same(one: GateResult, other: GateResult) -> bool:
    """To the bit, but for how long it took."""
    return _timeless(one) == _timeless(other)


def _timeless(result: GateResult) -> dict[str, Any]:
    body = result.model_dump()
    for name in ("seconds", "seconds_saved"):
        body["cost"].pop(name)
    return body
