"""Chooses the subprotocol to answer when a client is refused: pure.

A browser drops a socket that answers none of the subprotocols it offered, and its page sees 1006 without a reason. So
a refusal answers one. But what a page offers may be its token, which does not belong into an answer's headers, where
proxies and logs see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_MAX_CHARS: Final = 64  # no registered name has as many, and every JSON Web Token has more


def answer_to(offered: Sequence[str]) -> str | None:
    """Gives the first subprotocol that is a name and not a token; None where there is none."""
    return next((each for each in offered if len(each) < _MAX_CHARS), None)
