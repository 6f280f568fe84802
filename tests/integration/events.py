"""A client of event streams over a socket of its own: it parses what the standard says, and no more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode

from tests.integration.support import DEADLINE_S


class Listening(Protocol):
    """What has a port to connect to: a server, or a cable to it."""

    port: int


@dataclass
class Event:
    """An event, as `EventSource` gives it to a page.

    Attributes:
        name: Its type: ``message`` where the server names none.
        data: Its data.
        id: The last id that the server sent, with this event or before.
    """

    name: str
    data: str
    id: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass
class Stream:
    """The answer to one request.

    Attributes:
        status: The HTTP status.
        headers: Its headers, in lower case.
        id: The last id that came.
        retry_ms: The last ``retry`` that came.
        comments: The comments that came.
        raw: The body as it came, without chunks.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    id: str = ""
    retry_ms: int | None = None
    comments: list[str] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    _at: int = 0
    _ended: bool = False

    async def _begin(self) -> None:
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        self.status = int(first.split(" ")[1])
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()

    async def _more(self) -> bool:
        """Reads a part of the body. Returns False at its end."""
        if self._ended:
            return False
        if self.headers.get("transfer-encoding") == "chunked":
            size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
            data = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        elif "content-length" in self.headers:
            data = await self.reader.readexactly(int(self.headers["content-length"]) - len(self.raw))
        else:
            data = await self.reader.read(65536)
        self._ended = not data
        self.raw += data
        return not self._ended

    async def body(self) -> str:
        """Reads the body to its end."""
        async with asyncio.timeout(DEADLINE_S):
            while await self._more():
                pass
        return self.raw.decode()

    async def next(self) -> Event:
        """The next event."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                end = self.raw.find(b"\n\n", self._at)
                if end < 0:
                    if not await self._more():
                        raise EOFError(f"the stream ended: {bytes(self.raw[-200:])!r}")
                    continue
                block, self._at = self.raw[self._at : end].decode(), end + 2
                event = self._parsed(block)
                if event is not None:
                    return event

    def _parsed(self, block: str) -> Event | None:
        name, data = "message", []
        for line in block.split("\n"):
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if key == "":
                self.comments.append(value)
            elif key == "data":
                data.append(value)
            elif key == "event":
                name = value
            elif key == "id":
                self.id = value
            elif key == "retry":
                self.retry_ms = int(value)
            else:
                raise AssertionError(f"a line that is no field: {line!r}")
        return Event(name, "\n".join(data), self.id) if data else None

    async def take(self, count: int) -> list[Event]:
        """The next events."""
        return [await self.next() for _ in range(count)]

    async def ended(self) -> None:
        """Waits for the end of the stream, with whatever comes before."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                while True:
                    await self.next()
            except EOFError:
                pass


@asynccontextmanager
async def request(
    server: Listening, path: str, *, method: str = "GET", version: str = "1.1", body: str = "", **headers: str
) -> AsyncIterator[Stream]:
    """Sends a request, and reads the head of the answer.

    Args:
        server: The server.
        path: The path and the query.
        method: The method.
        version: The version of HTTP.
        body: A body.
        headers: Headers, with ``_`` for ``-``.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 20)
    try:
        lines = [f"{method} {path} HTTP/{version}", "Host: testserver"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body.encode())
        stream = Stream(reader, writer)
        async with asyncio.timeout(DEADLINE_S):
            await stream._begin()
        yield stream
    finally:
        writer.close()


def url(path: str, *rooms: str, **fields: str) -> str:
    """A path with rooms and other fields in the query."""
    return f"{path}?{urlencode([*[('room', room) for room in rooms], *fields.items()])}"


@asynccontextmanager
async def events(server: Listening, path: str, *rooms: str, since: str = "", **headers: str) -> AsyncIterator[Stream]:
    """Opens a stream, which must succeed, and reads its beginning."""
    if since:
        headers["Last_Event_ID"] = since
    if rooms:
        path = url(path, *rooms)
    async with request(server, path, Accept="text/event-stream", **headers) as stream:
        assert stream.status == 200, await stream.body()
        assert stream.headers["content-type"] == "text/event-stream"
        async with asyncio.timeout(DEADLINE_S):
            while b"\n\n" not in stream.raw:
                assert await stream._more()
        block, stream._at = stream.raw.split(b"\n\n")[0].decode(), stream.raw.index(b"\n\n") + 2
        assert stream._parsed(block) is None
        yield stream
