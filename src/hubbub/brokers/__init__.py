"""Brokers carry messages between processes. `broker_from` makes the broker that a URL names."""

from __future__ import annotations

from ..errors import InvalidArgument, shown
from .base import Broker
from .memory import MemoryBroker

__all__ = ["Broker", "MemoryBroker", "broker_from"]


def broker_from(broker: str | Broker) -> Broker:
    """Makes the broker that a URL names. Returns a broker unchanged.

        broker_from("redis://localhost?prefix=shop")

    Args:
        broker: ``"memory://"``, ``"redis://..."``, ``"rediss://..."``, ``"unix://..."``, or a `Broker`.

    Raises:
        InvalidArgument: The scheme is unknown, the URL is malformed, or a required package is not installed.
    """
    if isinstance(broker, Broker):
        return broker
    accepted = "'memory://', 'redis://...', 'rediss://...', 'unix://...', or an instance of hubbub.brokers.Broker"
    if not isinstance(broker, str):
        raise InvalidArgument("broker", f"got {shown(broker)}", accepted)
    scheme, separator, _ = broker.partition("://")
    if separator and scheme == "memory":
        return MemoryBroker()
    if separator and scheme in {"redis", "rediss", "unix"}:
        try:
            from .redis import RedisBroker
        except ImportError:
            raise InvalidArgument("broker", "redis-py is not installed", "pip install 'hubbub[redis]'") from None
        return RedisBroker(broker)
    # Only the scheme is shown: the rest of a broker's URL may hold a password.
    raise InvalidArgument("broker", f"a URL of the scheme {shown(scheme if separator else '')}", accepted)
