"""Helpers for the tests of apps and of brokers."""

from .endpoint_client import Disconnected, EndpointClient, RequestRefused, endpoint_client
from .events import (
    ClientInfo,
    Connected,
    Event,
    HistoryPage,
    Join,
    Leave,
    PersonalMessage,
    Publication,
    Subscribed,
    Unsubscribed,
)
from .pushed import Push, Pushed, record

__all__ = [
    "ClientInfo",
    "Connected",
    "Disconnected",
    "EndpointClient",
    "Event",
    "HistoryPage",
    "Join",
    "Leave",
    "PersonalMessage",
    "Publication",
    "Push",
    "Pushed",
    "RequestRefused",
    "Subscribed",
    "Unsubscribed",
    "endpoint_client",
    "record",
]
