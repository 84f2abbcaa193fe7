"""Several candidates over one loaded base, each put in and taken out between two batches.

A plain LoRA adapter is nothing but the modules that stand where the base's own stood. They are
made once, by PEFT; to switch is to exchange them.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from service.errors import AdapterUnreadable
from worker.adapter import read_config
from worker.candidates import Candidate
from worker.divergence import Head
from worker.head import candidate_head, head_of
from worker.model import Base, is_adapter, tuned
from worker.update import lora_facts

PLAIN = frozenset({"lora", "lora+rank_pattern", "lora+alpha_pattern"})
"""Kinds of adapters that change nothing else. Others may write into the base's own tensors, so
they are laid over it anew each time."""


@dataclass(frozen=True)
class Graft:
    candidate: Candidate
    shares_head: bool
    """Its head is the base's, one linear map, bit for bit."""
    head: Head | None = None
    """Null where it is made anew each time."""
    model: PreTrainedModel | None = None
    """A full model."""
    modules: list[tuple[nn.Module, str, nn.Module]] | None = None
    """Of a plain adapter: parent, name, and what stands there."""


class Grafts:
    """`with grafts.on(name) as (model, head):`; outside, `base.model` is the base bit for bit."""

    def __init__(self, base: Base, candidates: Mapping[str, Candidate]) -> None:
        self.base = base
        self.head = head_of(base.model)
        self._stack = ExitStack()
        self._grafts: dict[str, Graft] = {}
        with ExitStack() as undo:
            undo.callback(self._stack.close)
            for name, candidate in candidates.items():
                with blamed(candidate):
                    self._grafts[name] = self._made(candidate)
            undo.pop_all()

    def __enter__(self) -> "Grafts":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        return list(self._grafts)

    @property
    def share_head(self) -> bool:
        """Whether no candidate changes the base's one linear head."""
        return all(graft.shares_head for graft in self._grafts.values())

    @contextmanager
    def on(self, name: str) -> Iterator[tuple[PreTrainedModel, Head]]:
        """The candidate, ready to score, and its head."""
        graft = self._grafts[name]
        with blamed(graft.candidate), ExitStack() as laid:
            model = graft.model
            if graft.modules is not None:
                laid.enter_context(_exchanged(graft.modules))
                model = self.base.model
            elif model is None:
                model = laid.enter_context(tuned(self.base, graft.candidate.folder))
            yield model, graft.head or candidate_head(model, like=self.head)

    def _made(self, candidate: Candidate) -> Graft:
        if not is_adapter(candidate.folder):
            model = self._stack.enter_context(tuned(self.base, candidate.folder))
            return Graft(candidate, False, candidate_head(model), model)
        own = [(module, dict(module.named_children())) for module in self.base.model.modules()]
        with tuned(self.base, candidate.folder) as model:
            head = candidate_head(model, like=self.head)
            shares = head.same_as(self.head)
            if lora_facts(model, read_config(candidate.folder)).peft not in PLAIN:
                return Graft(candidate, shares)
            modules = [
                (parent, name, child)
                for parent, children in own
                for name, child in parent.named_children()
                if child is not children.get(name)
            ]
        return Graft(candidate, shares, head, modules=modules)


@contextmanager
def blamed(candidate: Candidate) -> Iterator[None]:
    """A fault of the candidate names the field that named it."""
    try:
        yield
    except AdapterUnreadable as error:
        raise AdapterUnreadable(error.message, param=candidate.param, **error.details) from error


@contextmanager
def _exchanged(modules: list[tuple[nn.Module, str, nn.Module]]) -> Iterator[None]:
    own = [(parent, name, getattr(parent, name)) for parent, name, _ in modules]
    try:
        for parent, name, child in modules:
            setattr(parent, name, child)
        yield
    finally:
        for parent, name, child in own:
            setattr(parent, name, child)
