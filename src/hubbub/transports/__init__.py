"""Transports: the fastest safe way to a socket on the server at hand."""

from __future__ import annotations

from collections.abc import Callable

from .asgi import AsgiTransport
from .base import Event, ServerSend, Transport
from .uvicorn import UvicornTransport, protocol_of

__all__ = ["AsgiTransport", "Event", "ServerSend", "Transport", "UvicornTransport", "transport_for"]


def transport_for(send: ServerSend, end_task: Callable[[], None]) -> tuple[Transport, str | None]:
    """Chooses a transport.

    Args:
        send: The server's ASGI ``send``.
        end_task: Ends the application's task; the last resort of a server that gives no access to its sockets.

    Returns:
        The transport, and through what frames go, and why, where they don't go straight to the socket.
    """
    found = protocol_of(send)
    if isinstance(found, str):
        return AsgiTransport(send, end_task), f"the server's ASGI send, message by message: {found}"
    transport = UvicornTransport(found, send)
    return transport, transport.detour
