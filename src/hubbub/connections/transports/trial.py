"""Tests at startup whether the installed uvicorn meets the requirements of direct writes.

Theory of operation. `hubbub.connections.transports.uvicorn` writes between the steps of uvicorn's protocol, and uvicorn
does not promise that this works. A list of known versions would not cover newer ones. So this module creates the
protocol as uvicorn does, at one end of a socket pair, and plays the client at the other end. The event loop, the
transport and the socket are real. The trial checks that:

* ``send`` is a method of the protocol, and ``transport``, ``writable`` and ``conn`` have the expected types.
* The app's messages and its Close are written in one step: when ``send`` returns, the socket and the transport's
  buffer hold all of it, and the reported size of the buffer is right. So later writes come after it.
* Pongs and keepalive pings are written whole: no pass of the event loop ends inside a frame.
* An incomplete message is visible, and a message over the parser's limit is refused before it is complete.
* ``writable`` is cleared when the buffer is full, set when it has emptied, and set when the connection is lost.
* An unsolicited pong does no harm, and an open ping of ours notices it.
* A Close that answers the client's, one for a missed pong, and one for a shutdown are each sent in the step in which
  the transport begins to close. Nothing is written after a Close.

It takes a few milliseconds, once per protocol class and type of event loop.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from struct import pack
from typing import Any, Final

from ...errors import shown
from ...protocols.frames import Opcode
from .trial_connection import CLOSE, PING, Flaw, Make, TrialConnection, accepted, masked

_PONG: Final = 0xA
_DEADLINE_S: Final = 5.0
_LARGE: Final = b"x" * 1_000_000
_FRAMES: Final = 300  # more than the parser takes in one turn
_BEGUN: Final = b"\x01\x81\0\0\0\0x"  # the first fragment of a text message
_TOO_LARGE: Final = b"\x80\xff" + (1 << 40).to_bytes(8) + b"\0\0\0\0"  # the header of its last fragment


async def flaw_in(make: Make) -> str | None:
    """Tries a protocol.

    Args:
        make: Creates the protocol.

    Returns:
        The first requirement that is not met; None if all are met.
    """
    try:
        async with asyncio.timeout(_DEADLINE_S):
            for attempt in (
                _messages,
                _full,
                _pinged,
                _lost,
                _bounded,
                _closed_by_app,
                _closed_by_peer,
                _shut_down,
                _silent,
            ):
                await attempt(make)
    except Flaw as flaw:
        return str(flaw)
    except TimeoutError:
        return f"it did not do what it should in {_DEADLINE_S:g} s"
    except Exception as error:
        return f"it raises {shown(error, limit=160)}"
    return None


def make_protocol(app: Any, settings: dict[str, Any]) -> Any:
    """Creates the default WebSocket protocol of the installed uvicorn."""
    import uvicorn  # imported late, because other servers do not need it
    from uvicorn.server import ServerState

    async def none(scope: Any, receive: Any, send: Any) -> None:
        pass  # a plain function, which uvicorn does not wrap

    config = uvicorn.Config(none, log_config=None, lifespan="off", interface="asgi3", **settings)
    config.load()
    config.loaded_app = app
    made: Any = config.ws_protocol_class
    return made(config, ServerState(), {})


async def _messages(make: Make) -> None:
    """Checks that frames written between the steps of the protocol arrive between its frames."""
    async with accepted(make) as trial:
        for number in range(4):
            trial.message(b"sent %d" % number)
            if not trial.write(b"written %d" % number):
                raise Flaw("it does not take a write between two messages")
        wanted = [b"sent 0", b"written 0", b"sent 1", b"written 1", b"sent 2", b"written 2", b"sent 3", b"written 3"]
        for payload in wanted:
            if await trial.expect(Opcode.TEXT) != payload:
                raise Flaw("messages and the writes between them arrive in a different order")
        for number in range(4):
            trial.say(PING, b"%d" % number)
            if await trial.expect(_PONG) != b"%d" % number:
                raise Flaw("its pongs do not match the pings")
            if not trial.write(b"between"):
                raise Flaw("it does not take a write between two pongs")
            await trial.expect(Opcode.TEXT)
        trial.say_raw(b"".join(masked(PING, b"%d" % number) for number in range(_FRAMES)))
        for number in range(_FRAMES):
            if await trial.expect(_PONG) != b"%d" % number:
                raise Flaw("its parser does not continue where it stopped at the end of a turn")


async def _full(make: Make) -> None:
    """Checks that a full socket pauses the protocol, and that the transport reports when it takes data again."""
    async with accepted(make) as trial:
        trial.message(_LARGE)
        await asyncio.sleep(0)
        if trial.protocol.writable.is_set():
            raise Flaw("it does not pause when its buffer is full")
        if trial.write(b"too much"):
            raise Flaw("it takes a write while it is paused")
        if await trial.expect(Opcode.TEXT) != _LARGE:
            raise Flaw("a large message did not come whole")
        await trial.transport.ready()
        if trial.transport.buffered or not trial.write(b"again"):
            raise Flaw("it takes nothing although its buffer is empty again")
        if await trial.expect(Opcode.TEXT) != b"again":
            raise Flaw("a write after a pause did not arrive")


async def _bounded(make: Make) -> None:
    """Checks that an incomplete message is visible, and that one that is too large is refused before it is complete."""
    async with accepted(make) as trial:
        if trial.transport.assembling:
            raise Flaw("it reports an incomplete message before any has begun")
        trial.say_raw(_BEGUN)
        while not trial.transport.assembling:  # noqa: ASYNC110 - no event: the parser does not report it
            await asyncio.sleep(0)
        trial.say_raw(_TOO_LARGE)
        await trial.expect_close(1009)
        if not trial.transport.message_too_big:
            raise Flaw("it does not report that a message was too large")


async def _pinged(make: Make) -> None:
    """Checks that the answer to a ping of ours is noticed, and that the protocol then works as before."""
    async with accepted(make) as trial:
        heard = asyncio.Event()
        ping = trial.transport.ping(heard.set)
        if ping is None:
            raise Flaw("its client can't be pinged")
        trial.say(_PONG, await trial.expect(PING))
        await heard.wait()
        if not ping.end():
            raise Flaw("the client's answer to a ping is not noticed")
        trial.say(PING, b"after")
        if await trial.expect(_PONG) != b"after":
            raise Flaw("it does not continue after an unsolicited pong")


async def _lost(make: Make) -> None:
    """Checks that a lost connection is reported, even while the protocol is paused."""
    async with accepted(make) as trial:
        trial.message(_LARGE)
        await asyncio.sleep(0)
        trial.vanish()
        await trial.transport.ready()
        if not trial.transport.closing or trial.write(b"to nobody"):
            raise Flaw("it does not report a lost connection as closing")


async def _closed_by_app(make: Make) -> None:
    """Checks that the app's Close is written in one step, and that nothing is written after it."""
    async with accepted(make) as trial:
        trial.message(b"before")
        trial.send_at_once("close", code=4321, reason="tried")
        if trial.protocol.conn.close_sent is None:
            raise Flaw("it does not set close_sent in the step in which it sends a Close")
        with suppress(RuntimeError, OSError):
            trial.send_at_once("send", text="after")
        await trial.expect(Opcode.TEXT)
        await trial.expect_close(4321)
        trial.say(CLOSE, pack("!H", 4321))
        await trial.expect_end()


async def _closed_by_peer(make: Make) -> None:
    """Checks that an answer to the client's Close is sent in the step in which the transport begins to close."""
    async with accepted(make) as trial:
        trial.say(CLOSE, pack("!H", 1000))
        await _closes(trial, 1000)


async def _shut_down(make: Make) -> None:
    """Checks the Close of a server that shuts down, and that it is recognized as such."""
    async with accepted(make) as trial:
        trial.protocol.shutdown()
        if not trial.transport.restarting:
            raise Flaw("it does not report that it shuts down")
        await _closes(trial, 1012)


async def _silent(make: Make) -> None:
    """Checks that a keepalive ping is written whole, and that the transport closes if no pong arrives."""
    async with accepted(make, ws_ping_interval=0.001, ws_ping_timeout=0.001) as trial:
        await trial.expect(PING)
        await _closes(trial, 1011)


async def _closes(trial: TrialConnection, code: int) -> None:
    await trial.expect_close(code)
    if not trial.transport.closing or trial.write(b"after"):
        raise Flaw("it does not close its transport in the step in which it sends a Close")
    await trial.expect_end()
