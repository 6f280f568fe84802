"""The parts of uvicorn's HTTP protocols that streams use, and the test of whether they behave as that requires.

Theory of operation. Uvicorn passes a bound method of the object of one request and its response, the *cycle*, as
``send``. A response without a length to an HTTP/1.1 request is sent in chunks (RFC 9112 section 7.1), and each event of
the app is written in one step, as whole chunks. So chunks that are written between two such steps land on the boundary
of a chunk. Neither protocol counts the bytes of such a body.

The response says ``Connection: close``, so that uvicorn closes the connection behind it, and a client that does not
read its end can be reset. Until the end, ``keep_alive`` has no meaning for uvicorn. It is set back to True, because a
server that shuts down sets it to False: so a stream notices.

`flaw_in_http` tries all of this with a real event loop and socket, once per class of protocol and type of loop, before
anything is written this way.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol

from ...errors import shown
from ...protocols.chunks import chunk
from .base import ServerSend

_MODULES: Final = ("uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.http.h11_impl")
_CLASSES: Final = ("HttpToolsProtocol", "H11Protocol")
_REQUEST: Final = b"GET /hubbub-tries-its-direct-path HTTP/1.1\r\nHost: localhost\r\n\r\n"
_DEADLINE_S: Final = 5.0
_LARGE: Final = b"x" * 1_000_000
_START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream"), (b"connection", b"close")],
}


class Flow(Protocol):
    """The part of uvicorn's ``FlowControl`` that streams use."""

    write_paused: bool

    async def drain(self) -> None:
        """Waits until the protocol is not paused."""


class Cycle(Protocol):
    """The part of uvicorn's ``RequestResponseCycle`` that streams use."""

    transport: asyncio.Transport
    flow: Flow
    disconnected: bool
    response_started: bool
    response_complete: bool
    keep_alive: bool


class Flaw(Exception):
    """A requirement of direct writes that a protocol does not meet."""


_verdicts: dict[tuple[type[asyncio.AbstractEventLoop], type], str | None] = {}


def cycle_of(send: ServerSend) -> Cycle | None:
    """Returns the cycle of uvicorn behind a server's ``send``; None behind any other."""
    owner: Any = getattr(send, "__self__", None)
    if type(owner).__module__ not in _MODULES or _missing(owner) is not None:
        return None
    cycle: Cycle = owner
    return cycle


def flaw_of(cycle: Cycle) -> str | None:
    """Returns why nothing may be written directly during a cycle; None if it may."""
    return _verdicts.get((type(asyncio.get_running_loop()), type(cycle)), "it is untested")


def _missing(cycle: object) -> str | None:
    names = ("transport", "flow", "disconnected", "response_started", "response_complete", "keep_alive")
    return next((f"it has no {name!r}" for name in names if not hasattr(cycle, name)), None)


async def prepare_http() -> None:
    """Tries the HTTP protocols of uvicorn that are loaded. Once for each of them and type of loop."""
    kind = type(asyncio.get_running_loop())
    for module, name in zip(_MODULES, _CLASSES, strict=True):
        loaded = sys.modules.get(module)
        cycle: Any = getattr(loaded, "RequestResponseCycle", None)
        if cycle is not None and (kind, cycle) not in _verdicts:
            _verdicts[kind, cycle] = await flaw_in_http(getattr(loaded, name))


async def flaw_in_http(protocol: Callable[..., Any]) -> str | None:
    """Tries a protocol.

    Args:
        protocol: The class.

    Returns:
        The first requirement that is not met; None if all are met.
    """
    try:
        async with asyncio.timeout(_DEADLINE_S):
            for attempt in (_chunks, _full, _lost, _shut_down):
                async with _request(protocol) as trial:
                    await attempt(trial)
    except Flaw as flaw:
        return str(flaw)
    except TimeoutError:
        return f"it did not do what it should in {_DEADLINE_S:g} s"
    except Exception as error:
        return f"it raises {shown(error, limit=160)}"
    return None


class _Trial:
    """A request with both of its ends: uvicorn's and the client's."""

    def __init__(self, protocol: Any, client: socket.socket, receive: Any, send: ServerSend) -> None:
        self.protocol = protocol
        self.receive = receive
        self.send = send
        cycle = cycle_of(send)
        if cycle is None:
            raise Flaw(_missing(getattr(send, "__self__", None)) or "its send is not a method of its cycle")
        self.cycle: Cycle = cycle
        self._client = client
        self._came = bytearray()
        self._ended = False

    def send_at_once(self, event: Any) -> None:
        """Sends an event as the app, which must be written in one step."""
        steps: Iterator[Any] = self.send(event).__await__()
        try:
            next(steps)
        except StopIteration:
            return
        raise Flaw("its send waits although the socket takes data")

    def body(self, data: bytes, *, more: bool = True) -> None:
        """Sends a part of the body as the app."""
        self.send_at_once({"type": "http.response.body", "body": data, "more_body": more})

    def begin(self) -> None:
        """Begins the response, as a stream does."""
        self.send_at_once(_START)
        if not self.cycle.response_started:
            raise Flaw("it does not say that a response has started")
        self.cycle.keep_alive = True

    async def expect(self, wanted: bytes) -> None:
        """Waits for bytes, which must be the next that arrive."""
        while len(self._came) < len(wanted):
            await self._more()
        if not self._came.startswith(wanted):
            raise Flaw(f"{shown(bytes(self._came[:40]))} arrives where {shown(wanted[:40])} is expected")
        del self._came[: len(wanted)]

    async def skip_head(self) -> None:
        """Skips the head of the response."""
        while (end := self._came.find(b"\r\n\r\n")) < 0:
            await self._more()
        if b"transfer-encoding: chunked" not in self._came[:end].lower():
            raise Flaw("it does not send a body without a length in chunks")
        del self._came[: end + 4]

    async def expect_end(self) -> None:
        """Waits until the server closes the connection. Nothing may arrive before that."""
        while not self._ended:
            await self._more(may_end=True)
        if self._came:
            raise Flaw("it writes after the end of a response")

    async def _more(self, *, may_end: bool = False) -> None:
        await asyncio.sleep(0)
        with suppress(BlockingIOError):
            data = self._client.recv(1 << 20)
            self._came += data
            self._ended = not data
            if self._ended and not may_end:
                raise Flaw("it closes the connection before the end of a response")

    def vanish(self) -> None:
        """Closes the client's end."""
        self._client.close()


@asynccontextmanager
async def _request(protocol: Callable[..., Any]) -> AsyncIterator[_Trial]:
    """Sends a request, to the point at which the app answers."""
    import uvicorn  # imported late, because other servers do not need it
    from uvicorn.server import ServerState

    loop = asyncio.get_running_loop()
    begun: asyncio.Future[tuple[Any, ServerSend]] = loop.create_future()
    over = loop.create_future()
    tasks: list[asyncio.Task[Any] | None] = []

    async def app(scope: Any, receive: Any, send: ServerSend) -> None:
        tasks.append(asyncio.current_task())
        begun.set_result((receive, send))
        with suppress(asyncio.CancelledError):
            await over

    async def none(scope: Any, receive: Any, send: Any) -> None:
        pass  # a plain function, which uvicorn does not wrap

    config = uvicorn.Config(none, log_config=None, lifespan="off", interface="asgi3")
    config.load()
    config.loaded_app = app
    made: Any = protocol(config, ServerState(), {})
    made.logger, made.access_log = _silent_log(), False  # no real client has connected
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: made, theirs)
    except BaseException:
        ours.close()
        theirs.close()
        raise
    try:
        ours.send(_REQUEST)
        receive, send = await begun
        trial = _Trial(made, ours, receive, send)
        if trial.cycle.transport is not transport:
            raise Flaw("its transport is not the socket's")
        yield trial
    finally:
        transport.abort()
        ours.close()
        over.cancel()
        for task in tasks:
            if task is not None:
                await asyncio.wait((task,))
        await asyncio.sleep(0)  # lets the transport call the protocol's connection_lost


def _silent_log() -> logging.Logger:
    log = logging.getLogger("hubbub.trial")
    log.setLevel(logging.CRITICAL + 1)
    return log


async def _chunks(trial: _Trial) -> None:
    """Checks that chunks written between the steps of the protocol arrive between its chunks, and how it ends."""
    trial.begin()
    await trial.skip_head()
    for number in range(3):
        trial.body(b"sent %d" % number)
        trial.cycle.transport.write(chunk(b"written %d" % number))
    for number in range(3):
        await trial.expect(chunk(b"sent %d" % number))
        await trial.expect(chunk(b"written %d" % number))
    if trial.cycle.response_complete or trial.cycle.disconnected:
        raise Flaw("it reports the end of a response that goes on")
    trial.cycle.keep_alive = False
    trial.body(b"last", more=False)
    if not trial.cycle.response_complete or not trial.cycle.transport.is_closing():
        raise Flaw("it does not close the connection in the step in which it ends a response")
    await trial.expect(chunk(b"last") + b"0\r\n\r\n")
    await trial.expect_end()


async def _full(trial: _Trial) -> None:
    """Checks that a full socket pauses the protocol, and that it reports when it takes data again."""
    trial.begin()
    await trial.skip_head()
    trial.body(_LARGE)
    await asyncio.sleep(0)
    if not trial.cycle.flow.write_paused:
        raise Flaw("it does not pause when its buffer is full")
    await trial.expect(chunk(_LARGE))
    await trial.cycle.flow.drain()
    if trial.cycle.flow.write_paused:
        raise Flaw("it is still paused although its buffer is empty again")


async def _lost(trial: _Trial) -> None:
    """Checks that a lost connection is reported, even while the protocol is paused."""
    trial.begin()
    await trial.skip_head()
    trial.body(_LARGE)
    await asyncio.sleep(0)
    trial.vanish()
    await trial.cycle.flow.drain()
    if not trial.cycle.disconnected or not trial.cycle.transport.is_closing():
        raise Flaw("it does not report a lost connection")
    event = await trial.receive()
    while event["type"] != "http.disconnect":
        event = await trial.receive()


async def _shut_down(trial: _Trial) -> None:
    """Checks that a server that shuts down can be recognized."""
    trial.begin()
    if not trial.cycle.keep_alive:
        raise Flaw("it does not keep what is written to keep_alive")
    trial.protocol.shutdown()
    if trial.cycle.keep_alive:
        raise Flaw("it does not report that it shuts down")
