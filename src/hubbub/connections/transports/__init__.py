"""Transports: direct writes to the socket under uvicorn, and the ASGI ``send`` of every other server."""

from __future__ import annotations

from .asgi import AsgiTransport
from .base import Event, ServerReceive, ServerSend, Transport
from .choosing import Detour, Detours, prepare, transport_for
from .ping import OpenPing
from .uvicorn import UvicornTransport

__all__ = [
    "AsgiTransport",
    "Detour",
    "Detours",
    "Event",
    "OpenPing",
    "ServerReceive",
    "ServerSend",
    "Transport",
    "UvicornTransport",
    "prepare",
    "transport_for",
]
