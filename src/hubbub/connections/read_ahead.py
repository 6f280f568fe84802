"""Reading for a handler that does not receive.

A server reads on only when the application takes what came: uvicorn stops at the first message. So a handler that only
pushes, or is long at work, sees neither the end of its client nor its pongs, and the server ends a healthy client that
happens to talk. For such a handler a task takes a bounded number of messages in advance; past that, the server's own
backpressure holds again.
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
    """Takes events as they come, and gives them in order.

    Args:
        receive: Where they come from.
        tasks: Who owns the task.
    """

    __slots__ = ("_bytes", "_changed", "_events", "_receive", "_task")

    def __init__(self, receive: Callable[[], Awaitable[Event]], tasks: Tasks) -> None:
        self._receive = receive
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._task = tasks.spawn(self._pump(), "read ahead")

    async def get(self) -> Event:
        """The next event; the disconnect again and again."""
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
        """Whether it takes no more, so that what the client sends meanwhile is not seen."""
        return len(self._events) >= _MAX_MESSAGES or self._bytes >= _MAX_BYTES

    def stop(self) -> None:
        """Ends the task. What was read is still given, and then the disconnect."""
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
