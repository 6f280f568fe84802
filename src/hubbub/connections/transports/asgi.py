"""The fallback transport: sends frames as ASGI events, on any server.

Theory of operation. ASGI offers only ``await send(event)``, which may wait as long as the server likes. So `write`
always refuses, and the writer's pump sends one message after another. The transport knows neither how much the server
buffers nor whether the client is there. An exception from ``send`` means that the client is gone; servers differ in
the type of the exception. The only way to end a socket whose client does not read is to end the app's task. The server
then drops the connection.
"""

from __future__ import annotations

from collections.abc import Callable

from ...protocols.frames import Opcode, split
from .base import Event, ServerSend, Transport

_PRIVATE_CODES = 3000
"""Added to a code such as 1008 on a server that lets apps use only 1000 and the codes from 3000 to 4999."""


class AsgiTransport(Transport):
    """Sends through the server's ASGI ``send``.

    Args:
        send: The server's ASGI ``send``.
        end_task: Ends the app's task.
    """

    __slots__ = ("_end_task", "_gone", "_send")

    def __init__(self, send: ServerSend, end_task: Callable[[], None]) -> None:
        self._send = send
        self._end_task = end_task
        self._gone = False

    @property
    def is_interruptible(self) -> bool:
        return True

    def hold(self, held: bool) -> None:
        pass  # `write` always refuses

    def write(self, data: bytes) -> bool:
        return False

    def set_high_water(self, max_bytes: int) -> None:
        pass  # the server decides how much it buffers

    def watch(self, admit: Callable[[], bool]) -> None:
        pass  # the server does not report control frames

    def limit_message_size(self, max_bytes: int | None) -> None:
        pass  # the server decides how large a message may be

    def maintain(self) -> None:
        pass  # there is no deferred work

    def stop_reading(self) -> None:
        pass  # the server decides what it reads

    async def ready(self) -> None:
        pass  # ASGI does not report when the socket takes data

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
        except UnicodeEncodeError:  # a lone surrogate in the message: the socket is still usable
            raise
        except Exception as error:
            if not _is_sound(event):
                raise  # the server rejects the type of the message: the socket is still usable
            self._gone = True
            raise ConnectionResetError(f"the server's send failed: {type(error).__name__}") from error

    async def _send_or_translate(self, event: Event) -> None:
        """Sends an event. Moves a close code to the private range if the server does not let apps use it."""
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
    """Whether the message of an event has a type that a server can send."""
    text, data = event.get("text"), event.get("bytes")
    return (text is None or isinstance(text, str)) and (
        data is None or isinstance(data, (bytes, bytearray, memoryview))
    )
