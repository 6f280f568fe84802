"""The instructions to all workers, as one worker gets them: each one, also those given while it was cut off.

Theory of operation. An instruction is published to all workers, and kept at Redis under the time at which it was given,
by the server's clock, which no two instructions share. A worker knows all instructions up to a time. It gets the next
ones while it is subscribed. After a cut it reads those that were given since, once it is subscribed again and before it
gets anything else. An instruction that it reads is delivered with its age, and does not affect younger connections.

An age is measured by the server's clock, and is at most the time for which the worker was cut off. So every connection
from before the cut is affected, whatever that clock did. Of very many instructions, or after very long, the oldest are
forgotten. Where this worker may have missed one of those, it closes all its clients, to be authorized again.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import Any, Final

from ...close import CloseCode
from ...envelope import Kick
from ...names import EVERYONE_NAME
from ..base import Receiver
from .channel import Instructed, Keys, unpack_instruction
from .commands import INSTRUCTIONS_KEPT_S
from .foreign import Foreign
from .link import Link

logger: Final = logging.getLogger("hubbub")

_AT_ONCE: Final = 500
_QUESTIONS: Final = 5
_SOON_S: Final = 0.005


class Instructions:
    """The instructions to all workers, as one worker gets them.

    Args:
        keys: How the keys are called.
        receiver: Takes them.
        foreign: Counts what can't be read.
    """

    def __init__(self, keys: Keys, receiver: Receiver, foreign: Foreign) -> None:
        self._foreign = foreign
        self._keys = keys
        self._receiver = receiver
        self._known: int | None = None  # the time up to which all are known, at Redis
        self._newest = 0  # that of the newest that was heard
        self._hears = False  # whether those after it are heard
        self._known_at = asyncio.get_running_loop().time()  # a time by which no later one was given, on this clock

    def came(self, instructed: Instructed) -> None:
        """Takes an instruction that came in by the subscription."""
        self._newest = max(self._newest, instructed.at)
        self._receiver.deliver(instructed.channel, instructed.instruction)

    def works(self) -> None:
        """The subscription has brought what was published a moment ago, and with it all before that."""
        if self._hears:
            self._known_at = asyncio.get_running_loop().time()

    def cut(self) -> None:
        """The subscription was lost."""
        if self._hears:
            self._known, self._hears = self._up_to(), False

    async def catch_up(self, link: Link, *, subscribed: bool) -> None:
        """Delivers the instructions that were given since the subscription was lost.

        Args:
            link: What is read over.
            subscribed: Whether later instructions come in already, over the same connection.

        Raises:
            BrokerUnavailable: It could not be read.
        """
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        clock_ms, read_at = await _clock_of(link)
        away_s = read_at - self._known_at
        after = clock_ms - int(away_s * 1000) if self._known is None else self._up_to()
        newest = after
        while True:
            found: Any = await link.call(
                "ZRANGEBYSCORE", self._keys.instructions, f"({newest}", "+inf", "WITHSCORES", "LIMIT", 0, _AT_ONCE
            )
            for packed, score in found:
                newest = int(score)
                self._deliver(packed, min(max(0.0, (clock_ms - newest) / 1000), away_s) + loop.time() - read_at)
            if len(found) < _AT_ONCE:
                break
        if int(await link.call("GET", self._keys.forgotten) or 0) > after or away_s > INSTRUCTIONS_KEPT_S:
            logger.warning(
                "this worker was cut off from Redis while more users were sent away than Redis remembers: all "
                "its clients are closed, so that none of those users stay connected"
            )
            cause = CloseCode.BROKER_UNAVAILABLE
            self._receiver.deliver(EVERYONE_NAME, Kick(cause.code, cause.reason))
        self._known, self._known_at = max(newest, self._known or 0), began_at
        self._hears = self._hears or subscribed

    def _up_to(self) -> int:
        return max(self._known or 0, self._newest if self._hears else 0)

    def _deliver(self, packed: bytes, age_s: float) -> None:
        try:
            instructed = unpack_instruction(packed, age_s=age_s)
        except ValueError as error:
            self._foreign.skip("an instruction", self._keys.instructions, error)
        else:
            self._receiver.deliver(instructed.channel, instructed.instruction)


async def _clock_of(link: Link) -> tuple[int, float]:
    """Redis' time in ms, and the event loop's time at which it was that at the latest.

    Sockets that came between the question and the answer can't be told from those that were there before, and would be
    sent away with them. So of a few questions the one that was answered soonest counts.
    """
    loop = asyncio.get_running_loop()
    soonest_s, clock_ms, read_at = inf, 0, 0.0
    for _ in range(_QUESTIONS):
        asked_at = loop.time()
        seconds, micros = await link.call("TIME")
        took_s = loop.time() - asked_at
        if took_s < soonest_s:
            soonest_s, clock_ms, read_at = took_s, int(seconds) * 1000 + int(micros) // 1000, loop.time()
        if took_s <= _SOON_S:
            break
    return clock_ms, read_at
