"""The end of tokens and permissions: how long they still last, and how long a client may still replace them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from ..arguments import timestamp
from ..claims import expiry_of

REFRESH_GRACE_S: Final = 25.0
"""Seconds after its expiry for which the client may still replace a token."""

_MAX_TTL_S: Final = 2**31 - 1


def ttl_s(ends_at: float | None) -> int:
    """Returns for how long a token or a permission lasts, as clients are told: at least 1, and 0 for forever."""
    return 0 if ends_at is None else int(min(max(1.0, ends_at - time.time()), _MAX_TTL_S))


def is_over(ends_at: float | None) -> bool:
    """Returns whether a time has come. None is never."""
    return ends_at is not None and time.time() >= ends_at


def is_past_grace(ends_at: float | None) -> bool:
    """Returns whether a token expired so long ago that the client may no longer replace it."""
    return ends_at is not None and is_over(ends_at + REFRESH_GRACE_S)


def end_of(user: object) -> float | None:
    """Returns when the token expires from which a user was made: its ``exp``, as a time or as the claim of a token.

    Returns:
        Seconds since the epoch; None if the user has no ``exp``, or one that is no time.
    """
    ends_at = user.get("exp") if isinstance(user, Mapping) else getattr(user, "exp", None)
    if isinstance(ends_at, datetime):
        return timestamp(ends_at)
    if isinstance(ends_at, bool) or not isinstance(ends_at, (int, float, str)):
        return None
    try:
        return expiry_of({"exp": ends_at})
    except (ValueError, OverflowError):
        return None
