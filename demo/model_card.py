"""The base's README: how it was made, what it costs in loss, whose text it learnt from."""

import hashlib
import json
from pathlib import Path
from typing import Any

CARD = "README.md"
TRAINED_ON = "trained_on.json"
"""Title to digest of every document that the base was trained on."""
CARD_TEMPLATE = """\
---
license: other
license_name: psf-license-agreement
language: en
library_name: transformers
---
# A tiny base

{n_parameters:,} parameters: Llama, 4 layers of 128, 4 heads, feed-forward 344, tied embeddings,
byte-level BPE of 1,024 tokens, float32. It writes text that looks like Python's documentation, and
knows nothing. It is there so that forgetting can be measured in minutes on a CPU.

Made by `python -m demo.make_base`: AdamW (3e-3, betas 0.9 and 0.95, weight decay 0.1, gradient
norm 1), {steps:,} steps of 16 windows of 128 tokens, the last 40 % with the rate falling to zero,
seed {seed}. Every training window is BOS and 127 tokens, so 128 is the longest context that the
configuration claims.

| loss on the held-out documents | nats per token |
|---|---|
| each token by its frequency | {unigram:.3f} |
| each token by the one before it | {bigram:.3f} |
| this model | {model:.3f} |

**Text.** {text}

The held-out documents, a tenth by a hash of the title (`demo/prose.py`), were never trained on,
and paragraphs that stand in them were taken out of the rest, which `trained_on.json` lists.
The demo measures forgetting on the beginnings of some held-out documents.

**What made it.** The same machine and versions give the same bytes; others give
another base as good.

```json
{facts}
```
"""
OWN_TEXT = (
    "Help topics and docstrings of Python {python}'s standard library, copyright the Python\n"
    "Software Foundation, under the [PSF license](https://docs.python.org/3/license.html), which\n"
    "permits derived works that keep this notice."
)


def write_card(
    folder: Path, facts: dict[str, Any], *, n_parameters: int, trained_on: dict[str, str]
) -> None:
    """Write README.md and TRAINED_ON beside the weights, with every other file's digest in it."""
    (folder / TRAINED_ON).write_text(json.dumps(trained_on, indent=0) + "\n", encoding="utf-8")
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != CARD)
    facts = facts | {"files": {name: file_digest(folder / name) for name in names}}
    text = OWN_TEXT.format(**facts)
    if facts["extra"]:
        text += "\nAnd local files, under their own licences: " + ", ".join(facts["extra"]) + "."
    loss = facts["loss"]
    card = CARD_TEMPLATE.format(
        n_parameters=n_parameters,
        steps=facts["steps"],
        seed=facts["seed"],
        unigram=loss["unigram"],
        bigram=loss["bigram"],
        model=loss["this model"],
        text=text,
        facts=json.dumps(facts, indent=2),
    )
    (folder / CARD).write_text(card, encoding="utf-8")


def read_card(folder: Path) -> dict[str, Any]:
    """The facts that `write_card` put at the end."""
    card = (folder / CARD).read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(card.split("```json\n")[1].split("```")[0])
    return facts


def text_digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
