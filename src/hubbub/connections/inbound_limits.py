"""Limits the size and the rate of the messages from one client. Pure: the caller passes the time."""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from ..close import CloseCode
from ..options import Limits

BURST_S: Final = 5.0
"""Seconds of its rate that a client can save up. At most twice that passes in one burst."""


class Complaint(NamedTuple):
    """A problem with a message from a client.

    Attributes:
        code: The error code, for programs.
        problem: The text, for people.
        then: The close code after too many such messages.
    """

    code: str
    problem: str
    then: CloseCode = CloseCode.INVALID_DATA


class Guard:
    """Checks the messages of one client against the limits.

    Args:
        limits: The limits.
    """

    __slots__ = ("_allowance", "_refilled_at", "errors", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits: Limits = limits
        self.errors: int = 0
        self._allowance = 0.0
        self._refilled_at = -inf  # the bucket starts full

    def check(self, text: str | None, data: bytes | None, now: float) -> Complaint | None:
        """Checks a message. Returns the problem, or None if the message is acceptable."""
        limit = self.limits.max_message_bytes
        size = len(text) if text is not None else len(data or b"")
        if limit is not None and size * 4 > limit:  # a character has at most 4 bytes
            size = size if text is None else len(text.encode())
            if size > limit:
                problem = f"a message of {size} bytes; the limit is {limit}"
                return Complaint("message_too_big", problem, CloseCode.MESSAGE_TOO_BIG)
        return self.check_frame(now)

    def check_frame(self, now: float, count: int = 1) -> Complaint | None:
        """Counts messages, or a frame that is not a whole message (a ping, a fragment), and checks the rate."""
        rate = self.limits.max_messages_per_s
        if rate is None or self._allowance >= count:
            self._allowance -= count
        elif not self._earned(rate, now, count):
            return Complaint("rate_limited", f"over {rate:g} messages a second", CloseCode.RATE_LIMITED)
        return None

    def too_many(self) -> bool:
        """Counts a bad message. Returns True if the client has sent too many."""
        self.errors += 1
        return self.limits.max_errors is not None and self.errors >= self.limits.max_errors

    def _earned(self, rate: float, now: float, count: int) -> bool:
        """Refills the token bucket and takes so many tokens. Returns False if there are fewer."""
        earned = (now - self._refilled_at) * rate
        self._refilled_at = now
        self._allowance = min(self._allowance + earned, max(1.0, rate * BURST_S))
        if self._allowance < count:
            return False
        self._allowance -= count
        return True
