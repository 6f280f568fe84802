"""Checks which kind of server a URL leads to, and whether it can serve workers. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ...errors import BrokerUnavailable
from .commands import error_text

_OLDEST: Final = 7

_CLUSTER: Final = (
    "the URL leads to a Redis Cluster, which hubbub does not support, because its scripts need all keys on one server. "
    "Give the URL of a single Redis or Valkey server, with or without replicas; on a hosted Redis, disable cluster mode"
)
_SENTINEL: Final = (
    "the URL leads to a Redis Sentinel, which holds no data. Give the URL of the master that it watches, or of a proxy "
    "or a DNS name that follows the master"
)
_REPLICA: Final = "the URL leads to a replica, which accepts no writes. Give the URL of its master"

_OF_A_CLUSTER: Final = {"ClusterCrossSlotError", "ClusterDownError", "MovedError", "AskError", "TryAgainError"}
"""Errors of redis-py that only a cluster node, or a proxy in front of a cluster, causes."""


class CannotServe(BrokerUnavailable):
    """The server answers, but is of a kind that can't serve workers. Retrying does not help."""


class CannotServeYet(BrokerUnavailable):
    """The server answers, but can't serve workers until its role changes, as in a failover."""


def check(hello: Mapping[bytes, Any]) -> None:
    """Checks a server's description of itself.

    Args:
        hello: The answer to HELLO. A missing field is not checked, because a proxy may leave it out.

    Raises:
        CannotServe: The server is a cluster, a sentinel, or too old.
        CannotServeYet: The server is a replica.
    """
    mode, role, version = (_text(hello.get(name)) for name in (b"mode", b"role", b"version"))
    if mode == "cluster":
        raise CannotServe(_CLUSTER)
    if mode == "sentinel":
        raise CannotServe(_SENTINEL)
    major = re.match(r"\d+", version)
    if major is not None and int(major[0]) < _OLDEST:
        raise CannotServe(f"the server is Redis {version[:20]}; hubbub needs Redis {_OLDEST}.0 or newer, or Valkey")
    if role in {"replica", "slave"}:
        raise CannotServeYet(_REPLICA)


def evicts(memory: bytes) -> str | None:
    """Returns the policy by which a server evicts keys when its memory is full; None if it never evicts.

    Args:
        memory: The answer to INFO memory.
    """
    policy = re.search(rb"^maxmemory_policy:([\w-]+)", memory, re.MULTILINE)
    limit = re.search(rb"^maxmemory:(\d+)", memory, re.MULTILINE)
    if policy is None or policy[1] == b"noeviction" or (limit is not None and int(limit[1]) == 0):
        return None
    return policy[1].decode()


def refused(command: str, error: Exception) -> BrokerUnavailable:
    """Converts an error that a server answered with into the error that callers receive.

    Args:
        command: The command that the server refused.
        error: The error of redis-py.
    """
    if type(error).__name__ in _OF_A_CLUSTER or "in cluster mode" in str(error):
        return CannotServe(f"Redis refused {command}: {_CLUSTER}")
    return BrokerUnavailable(f"Redis refused {command}: {error_text(error)}")


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""
