"""Pieces of TypeScript: literals, names of properties, and comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

INDENT: Final = "  "
WIDTH: Final = 100
_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")


def literal(value: Any) -> str:
    """Returns the type of one value of JSON."""
    if isinstance(value, list):
        return f"[{', '.join(literal(each) for each in value)}]"
    if isinstance(value, dict):
        members = [f"{key_of(key)}: {literal(each)}" for key, each in value.items()]
        return f"{{ {'; '.join(members)} }}" if members else "{}"
    return json.dumps(value, ensure_ascii=False)


def key_of(name: str) -> str:
    """Returns a name as the key of a property, in quotes where it needs them."""
    return name if _IDENTIFIER.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def comment(lines: Iterable[str], indent: str = "") -> str:
    """Returns a JSDoc comment with its line break, or nothing if there are no lines."""
    texts = [line.rstrip().replace("*/", "*\\/") for line in lines]
    while texts and not texts[-1]:
        texts.pop()
    if not texts:
        return ""
    if len(texts) == 1:
        return f"{indent}/** {texts[0]} */\n"
    body = "".join(f"{indent} * {text}".rstrip() + "\n" for text in texts)
    return f"{indent}/**\n{body}{indent} */\n"


def paragraphs(*texts: str | None) -> list[str]:
    """Returns the lines of texts, with an empty line between two."""
    lines: list[str] = []
    for text in texts:
        if text and text.strip():
            lines += ["", *text.strip().splitlines()] if lines else text.strip().splitlines()
    return lines


def tagged(lines: list[str], tags: Iterable[str]) -> list[str]:
    """Returns the lines of a comment, with its tags below."""
    below = list(tags)
    return [*lines, "", *below] if lines and below else lines + below
