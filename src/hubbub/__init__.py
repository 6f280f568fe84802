"""hubbub: the real-time layer for FastAPI."""

from .__about__ import __version__
from .asgi.middleware import HubbubMiddleware
from .brokers import Broker
from .close import CloseCode
from .codec import Message
from .connections.connection import Connection
from .endpoints import Endpoint, Grant, MessageRouter, Room, Welcome
from .envelope import Recorded
from .errors import (
    BrokerUnavailable,
    HubbubError,
    InvalidArgument,
    InvalidName,
    NotInstalled,
    NotRunning,
    NotSupported,
    ThreadTimeout,
    WrongLoop,
    WrongThread,
)
from .manager import ConnectionManager
from .metrics.counters import Stats
from .names import EVERYONE, RoomName, UserId
from .options import History, Limits, Overflow, RoomOptions
from .positions import Position
from .presence import Member
from .publisher import AsyncPublisher, Publisher

__all__ = [
    "EVERYONE",
    "AsyncPublisher",
    "Broker",
    "BrokerUnavailable",
    "CloseCode",
    "Connection",
    "ConnectionManager",
    "Endpoint",
    "Grant",
    "History",
    "HubbubError",
    "HubbubMiddleware",
    "InvalidArgument",
    "InvalidName",
    "Limits",
    "Member",
    "Message",
    "MessageRouter",
    "NotInstalled",
    "NotRunning",
    "NotSupported",
    "Overflow",
    "Position",
    "Publisher",
    "Recorded",
    "Room",
    "RoomName",
    "RoomOptions",
    "Stats",
    "ThreadTimeout",
    "UserId",
    "Welcome",
    "WrongLoop",
    "WrongThread",
    "__version__",
]
