"""The fallback: frames go out as ASGI events, through whatever server there is.

Theory of operation. ASGI has one way out, ``await send(event)``, which may wait as long as the server likes. So nothing
is written at once; the outbox's drain sends one message after another. How much the server buffers is not known, nor
whether the peer is there: an exception from ``send`` (servers differ in which) means that it is gone. To end a socket
whose peer does not read there is only one thing left, to end the application's task, upon which the server drops it.
"""

from __future__ import annotations

from collections.abc import Callable

from ...protocols.frames import Opcode, split
from .base import Event, ServerSend, Transport

_PRIVATE_CODES = 3000
"""What is added to a code such as 1008 where a server sends only 1000 and codes from 3000 to 4999."""


class AsgiTransport(Transport):
    """Sends through the server's ASGI ``send``.

    Args:
        send: The server's.
        end_task: Ends the application's task.
    """

    __slots__ = ("_end_task", "_gone", "_send")

    def __init__(self, send: ServerSend, end_task: Callable[[], None]) -> None:
        self._send = send
        self._end_task = end_task
        self._gone = False

    def hold(self, held: bool) -> None:
        pass  # write refuses anyway

    def write(self, data: bytes) -> bool:
        return False

    def bound(self, max_bytes: int) -> None:
        pass  # how much is buffered is the server's to say

    def watch(self, admit: Callable[[], bool]) -> None:
        pass  # the server tells nobody of what it answers by itself

    def bound_inbound(self, max_bytes: int | None) -> None:
        pass  # how large a message may get is the server's to say

    def tend(self) -> None:
        pass  # nothing was put off

    def hush(self) -> None:
        pass  # the server reads what it likes

    async def ready(self) -> None:
        pass  # there is no telling

    async def write_soon(self, data: bytes) -> None:
        for opcode, payload in split(data):
            if opcode is Opcode.TEXT:
                await self.send({"type": "websocket.send", "text": payload.decode()})
            else:
                await self.send({"type": "websocket.send", "bytes": payload})

    async def send(self, event: Event) -> None:
        if self._gone:
            raise ConnectionResetError("the socket is gone")
        try:
            await self._send_or_translate(event)
        except UnicodeEncodeError:  # half a surrogate pair in the message: the socket is as it was
            raise
        except Exception as error:
            if not _is_sound(event):
                raise  # the server says what is wrong with the message: the socket is as it was
            self._gone = True
            raise ConnectionResetError(f"the server's send failed: {type(error).__name__}") from error

    async def _send_or_translate(self, event: Event) -> None:
        """Sends; a close code that the server does not let an application use goes to the private range."""
        try:
            await self._send(event)
        except OSError:
            raise
        except Exception:
            code = event.get("code", 1000)
            if event["type"] != "websocket.close" or code == 1000 or code >= 3000:
                raise
            await self._send({**event, "code": code + _PRIVATE_CODES})  # daphne

    @property
    def buffered(self) -> int:
        return 0

    @property
    def closing(self) -> bool:
        return self._gone

    def abort(self) -> None:
        if not self._gone:
            self._gone = True
            self._end_task()


def _is_sound(event: Event) -> bool:
    """Whether the message of an event is of a type that a server can send."""
    text, data = event.get("text"), event.get("bytes")
    return (text is None or isinstance(text, str)) and (
        data is None or isinstance(data, (bytes, bytearray, memoryview))
    )
