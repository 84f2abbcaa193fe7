"""Text that a model or a stranger wrote, made harmless in Markdown and in XML.

Entities are text to every Markdown parser: they open no table cell, code span, tag or link.
"""

import re
import string
import unicodedata

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls, direction marks, lone surrogates: shown as escapes."""
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
ACTIVE = str.maketrans({char: f"&#{ord(char)};" for char in string.punctuation})
PLAIN = str.maketrans(
    {char: f"&#{ord(char)};" for char in set(string.punctuation) - set(".,;:()%-")}
)
COLON = re.compile(":(?! )")
LETTERS = re.compile(r"(?<=[A-Za-z])\.(?=[A-Za-z])")


def visible(text: str, *, most: int) -> str:
    """On one line, cut to `most` characters."""
    shown = "".join(map(_seen, text[: most + 1]))
    return f"{shown[:most]}…" if len(shown) > most else shown


def code(text: str, *, most: int = 80) -> str:
    """As it is, in a fixed-width face. GitHub looks for no mention and no issue in there."""
    return f"<code>{visible(text, most=most).translate(ACTIVE)}</code>"


def quoted(text: str, *, most: int = 80) -> str:
    """`code` in which spaces at the ends can be told."""
    return code(f'"{text}"' if len(text) <= most else f'"{text[:most]}…"', most=most + 3)


def prose(text: str, *, most: int) -> str:
    """A sentence in the running text: no markup, no mention, no link."""
    shown = visible(text, most=most).translate(PLAIN)
    shown = LETTERS.sub("&#46;", shown)  # www.… is a link to GitHub
    shown = COLON.sub("&#58;", shown)  # :tada: is a picture
    return shown.replace("&#64;", "&#64;\u200b").replace("&#35;", "&#35;\u200b")


def xml_text(text: str) -> str:
    """Without the characters that XML cannot hold, which no entity can bring back either."""
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _seen(char: str) -> str:
    if char in "\n\t\r":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}[char]
    if unicodedata.category(char) not in UNSEEN:
        return char
    point = ord(char)
    return f"\\x{point:02x}" if point < 256 else f"\\u{{{point:x}}}"
