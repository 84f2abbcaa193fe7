"""Documents cut into windows of tokens. A window's first token is context only; no window crosses
a document; a window that would score nothing is dropped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase as Tokenizer

from service.errors import CorpusUnreadable, InvalidSpec
from service.rows import Example
from worker.corpus import PARAM, Corpus, Document
from worker.model import Base
from worker.prompts import TOKENISED_AT_ONCE, begins_with, render, tokenise_spans

WINDOW_RULE = "per document, BOS by the tokenizer's habit, all but the first token scored; 1"
"""Names the rule in cache keys: change it whenever a window could change."""


@dataclass(frozen=True)
class Windows:
    """All windows end to end, in document order. A position is a scored token, in that order."""

    ids: NDArray[np.int32]  # every window's tokens, BOS included (tokens,)
    starts: NDArray[np.int64]  # where each window begins in `ids`, then the end (windows + 1,)
    scored: NDArray[np.bool_]  # never a window's first token (tokens,)
    document: NDArray[np.int32]  # (windows,)
    first: NDArray[np.int64]  # index in its document of the window's first document token
    begins_with_bos: bool
    context: int

    def __len__(self) -> int:
        return len(self.document)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    @cached_property
    def n_positions(self) -> int:
        return int(self.scored.sum())

    @cached_property
    def position_token(self) -> NDArray[np.int64]:
        """Index into `ids` of every position's token (positions,)."""
        return np.flatnonzero(self.scored)

    @cached_property
    def position_starts(self) -> NDArray[np.int64]:
        """Where each window's positions begin, then the end (windows + 1,)."""
        return np.concatenate([[0], np.cumsum(self.scored)])[self.starts]

    @cached_property
    def position_window(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self)), np.diff(self.position_starts))

    @cached_property
    def position_document(self) -> NDArray[np.int32]:
        return self.document[self.position_window]

    @cached_property
    def position_in_document(self) -> NDArray[np.int64]:
        """Index of every position's token in its document, BOS not counted (positions,)."""
        window = self.position_window
        in_window = self.position_token - self.starts[window]
        return self.first[window] + in_window - int(self.begins_with_bos)

    def batches(self, tokens: int) -> list[NDArray[np.int64]]:
        """Window indices in batches of at most `tokens` (padding included), longest first."""
        lengths = self.lengths
        order = np.argsort(-lengths, kind="stable")
        batches, start = [], 0
        while start < len(order):
            size = max(1, tokens // int(lengths[order[start]]))
            batches.append(np.sort(order[start : start + size]))
            start += size
        return batches

    def only(self, chosen: NDArray[np.int64]) -> "Windows":
        """Just these windows, in the order that they are named."""
        tokens = np.concatenate(
            [np.arange(self.starts[window], self.starts[window + 1]) for window in chosen]
        )
        return replace(
            self,
            ids=self.ids[tokens],
            starts=np.concatenate([[0], np.cumsum(self.lengths[chosen])]),
            scored=self.scored[tokens],
            document=self.document[chosen],
            first=self.first[chosen],
        )


def windows_of(corpus: Corpus, base: Base, context: int) -> Windows:
    """`cut`, for a base that reads so many tokens. Raises InvalidSpec where it reads fewer."""
    limit = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and context > limit:
        raise InvalidSpec(
            f"evaluation.context is {context}; the model reads at most {limit} tokens",
            param="evaluation.context",
            limit=limit,
        )
    return cut(corpus, base.tokenizer, context)


def cut(corpus: Corpus, tokenizer: Tokenizer, context: int) -> Windows:
    """Tokenise and cut. Raises CorpusUnreadable when no window scores a position."""
    head = begins_with(tokenizer)
    body = context - len(head)
    ids: list[NDArray[np.int32]] = []
    marks: list[NDArray[np.bool_]] = []
    document: list[int] = []
    first: list[int] = []
    for index, (tokens, wanted) in enumerate(_tokenised(corpus.documents, tokenizer, head)):
        for start in range(0, len(tokens), body):
            window = np.concatenate([head, tokens[start : start + body]]).astype(np.int32)
            scored = np.concatenate([[False] * len(head), wanted[start : start + body]])
            scored[0] = False
            if scored.any():
                ids.append(window)
                marks.append(scored.astype(bool))
                document.append(index)
                first.append(start)
    if not ids:
        raise CorpusUnreadable(
            f"{corpus.name} holds no window that can be scored: {len(corpus.documents)} documents, "
            f"none with {2 - len(head)} tokens",
            param=PARAM,
        )
    return Windows(
        ids=np.concatenate(ids),
        starts=np.concatenate([[0], np.cumsum([len(window) for window in ids])]),
        scored=np.concatenate(marks),
        document=np.array(document, np.int32),
        first=np.array(first, np.int64),
        begins_with_bos=bool(head),
        context=context,
    )


def _tokenised(
    documents: Sequence[Document], tokenizer: Tokenizer, bos: list[int]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
    """Per document its tokens, BOS not among them, and which of them may be scored: all of a
    text; of a conversation, what the assistant says."""
    for start in range(0, len(documents), TOKENISED_AT_ONCE):
        part = documents[start : start + TOKENISED_AT_ONCE]
        texts = [document.text for document in part]
        rows = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        for document, row in zip(part, rows, strict=True):
            if document.messages:
                yield _conversation(document, tokenizer, bos)
            else:
                yield np.array(row, np.int32), np.ones(len(row), bool)


def _conversation(
    document: Document, tokenizer: Tokenizer, bos: list[int]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    turns = Example(prompt=list(document.messages), completion=None, text=None)
    try:
        spans = render(turns, tokenizer, every_answer=True)
    except ValueError as error:
        raise CorpusUnreadable(f"{document.title}: {error}", param=PARAM) from error
    ((ids, wanted),) = tokenise_spans([spans], tokenizer)
    lead = len(bos) if ids[: len(bos)] == bos else 0
    return np.array(ids[lead:], np.int32), np.array(wanted[lead:], bool)
