"""Reads ahead for a handler that does not receive.

A server reads more only after the app has received what arrived: uvicorn pauses at the first message. So if a handler
only sends, or works for a long time, the server notices neither a disconnect nor pongs. It may then close a healthy
client because its pong was never read. For such a handler, a task receives a bounded number of messages in advance.
Beyond the bound, the server's own backpressure applies again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from ..tasks import Tasks
from .transports import Event

_MAX_MESSAGES = 64
_MAX_BYTES = 64 * 1024


class ReadAhead:
    """A bounded buffer of received events, filled by a task.

    Args:
        receive: Receives the next event.
        tasks: The owner of the task.
    """

    __slots__ = ("_bytes", "_changed", "_events", "_receive", "_task")

    def __init__(self, receive: Callable[[], Awaitable[Event]], tasks: Tasks) -> None:
        self._receive = receive
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._task = tasks.spawn(self._pump(), "read ahead")

    async def get(self) -> Event:
        """Returns the next event. After a disconnect, returns it again on every call."""
        while not self._events:
            await self._wait()
        event = self._events[0]
        if event["type"] != "websocket.disconnect":
            self._events.popleft()
            self._bytes -= _size(event)
            self._changed.set()
        return event

    @property
    def full(self) -> bool:
        """Whether the buffer is full. Until the handler receives, nothing more is read from the client."""
        return len(self._events) >= _MAX_MESSAGES or self._bytes >= _MAX_BYTES

    def stop(self) -> None:
        """Ends the task. `get` still returns the buffered events, and then a disconnect."""
        self._task.cancel()

    async def _pump(self) -> None:
        try:
            await self._fill()
        finally:
            if not self._events or self._events[-1]["type"] != "websocket.disconnect":
                self._events.append({"type": "websocket.disconnect", "code": 1006, "reason": ""})
            self._changed.set()

    async def _fill(self) -> None:
        while True:
            while self.full:
                await self._wait()
            event = await self._receive()
            self._events.append(event)
            self._bytes += _size(event)
            self._changed.set()
            if event["type"] == "websocket.disconnect":
                return

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _size(event: Event) -> int:
    return len(event.get("text") or event.get("bytes") or b"")
