"""Drains a process before its server shuts down: closes the open sockets a few at a time.

Theory of operation. A server that shuts down closes all its sockets in one step, and all their clients reconnect at the
same time. It learns of the shutdown from a signal, for which it has installed a handler (`signal.signal`). A drain
replaces that handler, closes the sockets gradually while the server still accepts connections and answers HTTP, and
then calls the server's handler. That works the same under uvicorn, in its workers and in gunicorn's.
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
"""Within this time a second signal counts as the same signal. A terminal or a service manager signals all processes of
a group, and a supervisor then forwards its own signal to its workers."""

_MAX_GAP_S = 0.1  # between two closes: a handful of sockets is no storm, and need not take the whole time
_MIN_GAP_S = 0.01

_Handler: TypeAlias = Callable[[int, FrameType | None], object]


class Drainable(Protocol):
    """A manager, as far as a drain needs it."""

    async def drain(self, over_s: float) -> bool:
        """Closes all connections, evenly over a time."""


_running: list[tuple[Drainable, asyncio.AbstractEventLoop]] = []


def started(manager: Drainable) -> None:
    """Registers a manager that runs from now on, on the running loop."""
    _running.append((manager, asyncio.get_running_loop()))


def stopped(manager: Drainable) -> None:
    """Unregisters a manager that has stopped."""
    _running[:] = [each for each in _running if each[0] is not manager]


def check_over_s(over_s: object) -> None:
    """Raises InvalidArgument if a value is not a number of seconds to drain over."""
    if isinstance(over_s, bool) or not isinstance(over_s, (int, float)) or not 0 <= over_s < inf:
        raise InvalidArgument("over_s", f"got {shown(over_s)}", "seconds, 0 or more")


async def send_away(sockets: Sequence[Socket], over_s: float) -> None:
    """Closes sockets with 1012, evenly over a time, or faster if there are few.

    Their users stay present for the grace period of the rooms, because their clients reconnect: no leave is announced.
    """
    loop = asyncio.get_running_loop()
    due = loop.time()
    for socket in sockets:
        early_s = due - loop.time()
        if early_s > 0:
            await asyncio.sleep(max(early_s, _MIN_GAP_S))
        socket.close_soon(CloseCode.SERVICE_RESTART)
        due += min(over_s / len(sockets), _MAX_GAP_S)


class Drain:
    """Replaces the server's signal handlers: the first signal drains, and then goes to the server's handler.

    A second signal stops immediately: it ends the drain, and the server closes the remaining sockets.

    Args:
        over_s: Seconds over which the closes are spread.
        echo_s: Seconds after the first signal within which another one counts as the same signal.

    Raises:
        InvalidArgument: ``over_s`` is not a number of seconds.
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
        """Takes over the signals for which a server has a handler, unless another drain already did."""
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread handles signals
        for number in SIGNALS:
            handler = signal.getsignal(number)
            taken = isinstance(getattr(handler, "__self__", None), Drain)
            if callable(handler) and handler is not signal.default_int_handler and not taken:
                self._servers[number] = handler
                signal.signal(number, self._signalled)

    def end(self) -> None:
        """Restores the server's handlers. Idempotent."""
        for number, handler in self._servers.items():
            if signal.getsignal(number) == self._signalled:
                signal.signal(number, handler)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._handle, number)

    def _handle(self, number: int) -> None:
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
    """Drains all managers of the event loop on SIGTERM and SIGINT, before the server shuts down.

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            with drain_first():
                yield

    Use it in the lifespan of an app under uvicorn, or under gunicorn with uvicorn's worker. ``hubbub run`` drains by
    itself. A second signal stops immediately. It has no effect outside the main thread, as in a test client.

    Args:
        over_s: Seconds over which the closes are spread. The supervisor of the process must wait longer than that.

    Raises:
        InvalidArgument: ``over_s`` is not a number of seconds.
    """
    drain = Drain(over_s)
    drain.begin()
    try:
        yield
    finally:
        drain.end()
