"""An example as one string with supervised spans, and the string as tokens.

The whole string is tokenised at once, so words at a seam merge as they would in plain text; a
token is supervised if any character of a supervised span is in it.

Without a chat template, messages are written `role: content`, one per line:

    system: Be brief.
    user: Where is Paris?
    assistant: In France.</s>

and what is supervised begins at the space after `assistant:`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase as Tokenizer

from service.rows import Example, Message

TOKENISED_AT_ONCE = 1000


@dataclass(frozen=True)
class Span:
    text: str
    supervised: bool


def render(example: Example, tokenizer: Tokenizer, *, every_answer: bool = False) -> list[Span]:
    """Spans that together are the row's text.

    Answers end in EOS where the tokenizer has one and the chat template does not end them itself.
    With `every_answer` all assistant messages are supervised, otherwise the completion alone.
    Raises ValueError when the chat template refuses the messages.
    """
    eos = tokenizer.eos_token or ""
    prompt, completion = example.prompt, example.completion
    if example.text is not None:
        return [Span(example.text + eos, supervised=False)]
    if isinstance(prompt, list) or isinstance(completion, list):
        before, after = _messages(prompt, "user"), _messages(completion, "assistant")
        first = 0 if every_answer else len(before)
        if tokenizer.chat_template:
            return _templated(before + after, first, tokenizer)
        return _plain(before + after, first, eos)
    return [Span(prompt or "", supervised=False), Span(f"{completion}{eos}", supervised=True)]


def tokenise_spans(
    rows: list[list[Span]], tokenizer: Tokenizer
) -> Iterator[tuple[list[int], list[bool]]]:
    """(token ids, whether supervised) of each row, BOS first where the tokenizer puts one."""
    bos = begins_with(tokenizer)
    for start in range(0, len(rows), TOKENISED_AT_ONCE):
        part = rows[start : start + TOKENISED_AT_ONCE]
        encode = _encode_fast if tokenizer.is_fast else _encode_slow
        for ids, supervised in encode(part, tokenizer):
            # A chat template writes BOS itself.
            lead = [] if ids[: len(bos)] == bos else bos
            yield lead + ids, [False] * len(lead) + supervised


def begins_with(tokenizer: Tokenizer) -> list[int]:
    """[BOS] if the tokenizer puts one before plain text by itself, else []."""
    ids = tokenizer("a")["input_ids"]
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and ids and ids[0] == bos else []


def _messages(part: list[Message] | str | None, role: str) -> list[Message]:
    if part is None:
        return []
    return [{"role": role, "content": part}] if isinstance(part, str) else list(part)


def _plain(messages: list[Message], first: int, eos: str) -> list[Span]:
    spans = []
    for i, message in enumerate(messages):
        answer = message["role"] == "assistant" and i >= first
        spans.append(Span(f"{message['role']}:", supervised=False))
        end = eos if message["role"] == "assistant" else ""
        spans.append(Span(f" {message['content']}{end}", supervised=answer))
        if i + 1 < len(messages):
            spans.append(Span("\n", supervised=False))
    return spans


def _templated(messages: list[Message], first: int, tokenizer: Tokenizer) -> list[Span]:
    """Where each answer begins and ends in the whole rendering: as far as the renderings of the
    messages before it (with the generation prompt) and up to it agree with the whole."""
    whole = _rendering(messages, tokenizer)
    if not _ended(whole, messages[-1]["content"]):
        whole += tokenizer.eos_token or ""
    spans, at = [], 0
    for i, message in enumerate(messages):
        if message["role"] != "assistant" or i < first:
            continue
        begin = _agree(_rendering(messages[:i], tokenizer, generation_prompt=True), whole)
        last = i + 1 == len(messages)
        end = len(whole) if last else _agree(_rendering(messages[: i + 1], tokenizer), whole)
        if begin < at or end <= begin:
            continue  # the template rewrites earlier turns: this answer is not in the text as such
        spans += [Span(whole[at:begin], supervised=False), Span(whole[begin:end], supervised=True)]
        at = end
    return [*spans, Span(whole[at:], supervised=False)]


def _rendering(
    messages: list[Message], tokenizer: Tokenizer, *, generation_prompt: bool = False
) -> str:
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generation_prompt
        )
    except (TemplateError, TypeError) as error:
        raise ValueError(f"the chat template refuses it ({error})") from error
    return str(text)


def _ended(whole: str, answer: str) -> bool:
    """Whether the template writes anything but space after the last answer (an end of turn)."""
    return bool(whole.rpartition(answer.strip())[2].strip())


def _agree(part: str, whole: str) -> int:
    """Length of the longest common beginning."""
    n = min(len(part), len(whole))
    return next((i for i in range(n) if part[i] != whole[i]), n)


def _encode_fast(
    rows: list[list[Span]], tokenizer: Tokenizer
) -> Iterator[tuple[list[int], list[bool]]]:
    texts = ["".join(span.text for span in spans) for spans in rows]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    for spans, ids, offsets in zip(
        rows, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        supervised = [False] * len(ids)
        for first, last in _supervised(spans):
            for i, (begin, end) in enumerate(offsets):
                if begin < last and end > first:
                    supervised[i] = True
        yield ids, supervised


def _supervised(spans: list[Span]) -> list[tuple[int, int]]:
    """Where the supervised spans begin and end in the row's text."""
    found, at = [], 0
    for span in spans:
        if span.supervised:
            found.append((at, at + len(span.text)))
        at += len(span.text)
    return found


def _encode_slow(
    rows: list[list[Span]], tokenizer: Tokenizer
) -> Iterator[tuple[list[int], list[bool]]]:
    """Without offsets: span by span, so that no token belongs to two."""
    for spans in rows:
        ids, supervised = [], []
        for span in spans:
            piece = tokenizer(span.text, add_special_tokens=False)["input_ids"] if span.text else []
            ids += piece
            supervised += [span.supervised] * len(piece)
        yield ids, supervised
