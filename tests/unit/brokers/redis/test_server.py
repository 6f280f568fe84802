"""Which servers can serve."""

from __future__ import annotations

import pytest

from hubbub import BrokerUnavailable
from hubbub.brokers.redis.server import CannotServe, CannotServeYet, check, evicts, refused

REDIS = {b"server": b"redis", b"version": b"7.0.15", b"proto": 3, b"mode": b"standalone", b"role": b"master"}


@pytest.mark.parametrize("version", [b"7.0.0", b"7.2.4", b"8.0.1", b"10.0.0", b"255.255.255", b"", b"unstable"])
def test_a_server_that_can_serve_is_taken(version: bytes) -> None:
    check({**REDIS, b"version": version})


def test_what_a_server_does_not_say_is_not_held_against_it() -> None:
    check({})
    check({b"mode": None, b"role": 7})


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({b"mode": b"cluster"}, "Redis Cluster"),
        ({b"mode": b"cluster", b"role": b"replica"}, "Redis Cluster"),
        ({b"mode": b"sentinel"}, "Redis Sentinel"),
        ({b"version": b"6.2.14"}, r"Redis 6\.2\.14; hubbub needs Redis 7\.0"),
    ],
)
def test_a_server_that_can_not_serve_is_named_and_what_to_do(differs: dict[bytes, bytes], said: str) -> None:
    with pytest.raises(CannotServe, match=said):
        check({**REDIS, **differs})


@pytest.mark.parametrize("role", [b"replica", b"slave"])
def test_a_replica_may_become_a_master(role: bytes) -> None:
    with pytest.raises(CannotServeYet, match="replica"):
        check({**REDIS, b"role": role})


def test_a_refusal_says_what_was_refused_and_why() -> None:
    error = refused("EVALSHA", ValueError("OOM command not allowed"))
    assert type(error) is BrokerUnavailable
    assert str(error) == "Redis refused EVALSHA: 'OOM command not allowed'"


@pytest.mark.parametrize(
    ("memory", "policy"),
    [
        (b"# Memory\r\nmaxmemory:1024\r\nmaxmemory_human:1K\r\nmaxmemory_policy:allkeys-lru\r\n", "allkeys-lru"),
        (b"maxmemory:1024\r\nmaxmemory_policy:volatile-ttl\r\n", "volatile-ttl"),
        (b"maxmemory_policy:volatile-lfu\r\n", "volatile-lfu"),
        (b"maxmemory:1024\r\nmaxmemory_policy:noeviction\r\n", None),
        (b"maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", None),
        (b"", None),
    ],
)
def test_a_server_that_may_evict_keys_is_known_by_its_policy(memory: bytes, policy: str | None) -> None:
    assert evicts(memory) == policy
