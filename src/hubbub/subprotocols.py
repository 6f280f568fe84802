"""Chooses the subprotocol with which a refused client is answered. Pure.

A browser drops a socket whose answer selects none of the offered subprotocols, and its page sees 1006 without a reason.
So a refusal selects one. But a page may offer its token as a subprotocol, and the answer must not repeat it, because
proxies log headers. A client may be refused before the app has named its subprotocols, so a name is recognized by its
form: a few words and version numbers, like the registered ``v12.stomp``, ``ocpp2.0.1`` and ``graphql-transport-ws``.
Tokens are random, and hardly ever look like that. If no offer looks like a name, the refusal selects none: a page
without a reason costs less than a leaked token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_MAX_CHARS: Final = 64
_WORD: Final = r"(?:[A-Z]{1,8}|[A-Z]?[a-z]{1,20}(?:[A-Z][a-z]{1,20}){0,2})(?:[vV]?[0-9]{1,2})?"
_LATER_PART: Final = rf"(?:{_WORD}|[a-z][0-9]{{1,2}}[a-z]|[0-9]{{1,4}})"  # k8s, and a year
_NAME: Final = re.compile(rf"{_WORD}(?:[._+-]{_LATER_PART})*")


def answer_to(offered: Sequence[str]) -> str | None:
    """Returns the first offer that looks like a name and not like a token; None if there is none."""
    return next((each for each in offered if len(each) < _MAX_CHARS and _NAME.fullmatch(each)), None)
