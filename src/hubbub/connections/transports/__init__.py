"""Transports: the fastest safe way to a socket on the server at hand."""

from __future__ import annotations

from .asgi import AsgiTransport
from .base import Event, ServerReceive, ServerSend, Transport
from .choosing import Detour, prepare, transport_for
from .question import Question
from .uvicorn import UvicornTransport

__all__ = [
    "AsgiTransport",
    "Detour",
    "Event",
    "Question",
    "ServerReceive",
    "ServerSend",
    "Transport",
    "UvicornTransport",
    "prepare",
    "transport_for",
]
