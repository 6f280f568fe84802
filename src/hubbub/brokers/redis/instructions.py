"""Receives the instructions to all workers, including those published while this worker was cut off.

Theory of operation. An instruction is published to all workers. Redis also keeps it, under the time of its publishing
by the server's clock; no two instructions have the same time. A worker knows all instructions up to a time, and
receives later ones while it is subscribed. After a cut, it subscribes again, and then reads the instructions published
since, before it receives anything else. These are delivered with their age, and do not affect younger connections.

The age is measured by the server's clock, and is at most the time for which the worker was cut off. So every connection
from before the cut is affected, even if that clock was changed. When there are too many instructions, or they are too
old, Redis forgets the oldest. If this worker may have missed a forgotten one, it closes all its clients, which are
authorized again when they reconnect.
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
    """Delivers each instruction to all workers to one worker, and reads those that it missed.

    Args:
        keys: The names of the keys.
        receiver: Receives the instructions.
        foreign: Counts instructions that can't be read.
    """

    def __init__(self, keys: Keys, receiver: Receiver, foreign: Foreign) -> None:
        self._foreign = foreign
        self._keys = keys
        self._receiver = receiver
        self._known: int | None = None  # the time, by Redis' clock, up to which all instructions are known
        self._newest = 0  # the time of the newest instruction received over the subscription
        self._hears = False  # whether the subscription brings all later instructions
        self._awaited: dict[int, asyncio.Future[bool]] = {}  # by the times of the instructions
        self._known_at = (
            asyncio.get_running_loop().time()
        )  # on the event loop's clock: all earlier instructions are known

    def receive(self, instructed: Instructed) -> None:
        """Receives an instruction over the subscription."""
        self._newest = max(self._newest, instructed.at)
        self._receiver.deliver(instructed.channel, instructed.instruction)
        _answer(self._awaited.pop(instructed.at, None), True)

    async def received(self, at: int, timeout_s: float) -> bool:
        """Waits until this worker has received an instruction that Redis has published.

        Args:
            at: The time of the instruction.
            timeout_s: Seconds to wait.

        Returns:
            False if the subscription is lost, or does not bring it in time. Then it is received later, with its age.
        """
        if not self._hears:
            return False
        if self._up_to() >= at:
            return True
        awaited: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._awaited[at] = awaited
        try:
            async with asyncio.timeout(timeout_s):
                return await awaited
        except TimeoutError:
            return False
        finally:
            self._awaited.pop(at, None)

    def heard_canary(self) -> None:
        """Records that the subscription is up to date: a canary sent a moment ago has arrived, after all before it."""
        if self._hears:
            self._known_at = asyncio.get_running_loop().time()

    def cut(self) -> None:
        """Records that the subscription was lost."""
        if self._hears:
            self._known, self._hears = self._up_to(), False
        for awaited in self._awaited.values():
            _answer(awaited, False)

    async def catch_up(self, link: Link, *, subscribed: bool) -> None:
        """Delivers the instructions published since the subscription was lost.

        Args:
            link: The connection over which to read.
            subscribed: Whether the same connection already brings later instructions.

        Raises:
            BrokerUnavailable: The instructions could not be read.
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
                "this worker was cut off from Redis, and may have missed instructions that Redis no longer keeps: "
                "closing all its clients, so that no user stays connected who was kicked meanwhile"
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


def _answer(awaited: asyncio.Future[bool] | None, received: bool) -> None:
    if awaited is not None and not awaited.done():
        awaited.set_result(received)


async def _clock_of(link: Link) -> tuple[int, float]:
    """Returns Redis' time in ms, and the event loop's time when the answer arrived.

    An instruction could also affect connections that opened between the question and the answer. So this asks a few
    times, and uses the fastest answer.
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
