"""The end, told in time: clients are sent away a few at a time, before the server hears that it is to end.

Theory of operation. A server that is to end closes all its sockets in one step, and all who come back storm the fleet.
It is told to by a signal, for which it has a handler (`signal.signal`); so who stands before that handler has all
the time to drain, while the server still accepts and HTTP is still answered, and passes the signal on afterwards. That
is the same under one uvicorn, in its workers and in gunicorn's, and needs nothing of them but the handler.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from types import FrameType
from typing import Final, Protocol, TypeAlias

from ..close import CloseCode
from ..connections.socket import Socket
from ..errors import InvalidArgument, shown

logger: Final = logging.getLogger("hubbub")

SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))
ECHO_S: Final = 1.0
"""A terminal or a service manager signals all processes of a group, and then a supervisor passes its own signal on to
its workers. So within this time it is one word that is heard twice."""

_MOST_APART_S = 0.1  # so that a handful of sockets, which is no storm, keeps nobody waiting
_LEAST_APART_S = 0.01

_Handler: TypeAlias = Callable[[int, FrameType | None], object]


class Drainable(Protocol):
    """What a drain needs of a manager."""

    async def drain(self, over_s: float) -> bool:
        """Sends everybody away."""


_running: list[tuple[Drainable, asyncio.AbstractEventLoop]] = []


def started(manager: Drainable) -> None:
    """A manager runs from here on, on the running loop."""
    _running.append((manager, asyncio.get_running_loop()))


def stopped(manager: Drainable) -> None:
    """It does not any more."""
    _running[:] = [each for each in _running if each[0] is not manager]


def check_over_s(over_s: object) -> None:
    """Raises InvalidArgument for what is no time to drain over."""
    if isinstance(over_s, bool) or not isinstance(over_s, (int, float)) or not 0 <= over_s < inf:
        raise InvalidArgument("over_s", f"got {shown(over_s)}", "seconds, 0 or more")


async def send_away(sockets: Sequence[Socket], over_s: float) -> None:
    """Closes sockets with 1012, evenly over a time; sooner where they are few.

    Their users stay present for the rooms' grace: they are told to come back, and nobody needs to hear that they went.
    """
    loop = asyncio.get_running_loop()
    due = loop.time()
    for socket in sockets:
        early_s = due - loop.time()
        if early_s > 0:
            await asyncio.sleep(max(early_s, _LEAST_APART_S))
        socket.close_soon(CloseCode.SERVICE_RESTART)
        due += min(over_s / len(sockets), _MOST_APART_S)


class Drain:
    """Stands before the server's signal handlers: the first signal drains, and only then is the server told.

    One that comes after `ECHO_S` hastens: the server is told at once, and closes who is left.

    Args:
        over_s: Seconds to spread the closes over.
        echo_s: For how long after the first signal others are taken for the same.

    Raises:
        InvalidArgument: It is no time.
    """

    def __init__(self, over_s: float, *, echo_s: float = ECHO_S) -> None:
        check_over_s(over_s)
        self._over_s = over_s
        self._echo_s = echo_s
        self._loop = asyncio.get_running_loop()
        self._servers: dict[int, _Handler] = {}
        self._task: asyncio.Task[None] | None = None
        self._first_at = 0.0

    def begin(self) -> None:
        """Takes the signals, where a server handles them and no other drain does."""
        if threading.current_thread() is not threading.main_thread():
            return  # no other gets any
        for number in SIGNALS:
            handler = signal.getsignal(number)
            taken = isinstance(getattr(handler, "__self__", None), Drain)
            if callable(handler) and handler is not signal.default_int_handler and not taken:
                self._servers[number] = handler
                signal.signal(number, self._signalled)

    def end(self) -> None:
        """Gives them back. Idempotent."""
        for number, handler in self._servers.items():
            if signal.getsignal(number) == self._signalled:
                signal.signal(number, handler)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._told, number)

    def _told(self, number: int) -> None:
        now = self._loop.time()
        if self._task is None:
            self._first_at = now
            self._task = self._loop.create_task(self._drain(number), name="hubbub:drain")
        elif now - self._first_at >= self._echo_s:
            self._task.cancel()

    async def _drain(self, number: int) -> None:
        managers = [manager for manager, loop in _running if loop is self._loop]
        try:
            await asyncio.gather(*(manager.drain(self._over_s) for manager in managers))
        except Exception:
            logger.exception("the drain failed")
        finally:
            self.end()
            self._servers[number](number, None)


@contextmanager
def drain_first(over_s: float = 5.0) -> Iterator[None]:
    """Drains all managers of the event loop on SIGTERM and SIGINT, before the server hears of it.

    For the lifespan of an app under uvicorn, its workers, or gunicorn with uvicorn's worker; under ``hubbub run`` it is
    done already. A second signal hastens. Without effect in a thread that gets no signals, such as a test client's.

    Args:
        over_s: Seconds to spread the closes over. What supervises the process has to wait for longer than that.

    Raises:
        InvalidArgument: It is no time.
    """
    drain = Drain(over_s)
    drain.begin()
    try:
        yield
    finally:
        drain.end()
