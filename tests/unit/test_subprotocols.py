"""Which offered subprotocol a refusal answers."""

from __future__ import annotations

from base64 import b32encode, urlsafe_b64encode
from collections.abc import Callable
from random import Random
from uuid import UUID

import jwt
import pytest

from hubbub.subprotocols import answer_to

TOKEN = jwt.encode({"sub": ""}, "a key of the tests, of more than 32 bytes", "HS256")


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        ([], None),
        (["bearer", TOKEN], "bearer"),
        (["graphql-transport-ws"], "graphql-transport-ws"),
        ([TOKEN], None),
        ([TOKEN, "v12.stomp"], "v12.stomp"),
        (["s3cr3t-t0ken-value"], None),
        (["5f0c2b9a71d84e63", "chat"], "chat"),
    ],
    ids=["none", "bearer", "a name", "a token", "a token and a name", "a short token", "a short token and a name"],
)
def test_a_name_is_answered_and_no_token(offered: list[str], answer: str | None) -> None:
    assert answer_to(offered) == answer


NAMES = [
    "MBWS.huawei.com",
    "TLCP-2.0.0.lightstreamer.com",
    "actioncable-v1-json",
    "base64.channel.k8s.io",
    "centrifuge-protobuf",
    "chat",
    "chatV2",
    "graphql-ws",
    "json.webpubsub.azure.v1",
    "mielecloudconnect",
    "mqtt",
    "myChat",
    "notificationchannel-netapi-rest.openmobilealliance.org",
    "ocpp1.6",
    "ocpp2.0.1",
    "opcua+uajson",
    "openai-beta.realtime-v1",
    "protobuf.reliable.webpubsub.azure.v1",
    "soap",
    "v1.ms-stream",
    "v1.swindon-lattice+json",
    "v12.stomp",
    "wamp.2.msgpack",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_in_use_are_answered(name: str) -> None:
    assert answer_to([name]) == name


TOKENS: dict[str, Callable[[Random], str]] = {
    "hex": lambda dice: dice.randbytes(16).hex(),
    "base64": lambda dice: urlsafe_b64encode(dice.randbytes(15)).decode(),
    "long base64": lambda dice: urlsafe_b64encode(dice.randbytes(33)).decode(),
    "uuid": lambda dice: str(UUID(bytes=dice.randbytes(16), version=4)),
    "base32": lambda dice: b32encode(dice.randbytes(20)).decode(),
    "behind a prefix": lambda dice: f"sk_live_{urlsafe_b64encode(dice.randbytes(18)).decode()}",
    "behind a name": lambda dice: f"openai-insecure-api-key.sk-{dice.randbytes(12).hex()}",
}


@pytest.mark.parametrize("kind", TOKENS)
def test_random_tokens_of_any_length_are_not_answered(kind: str) -> None:
    dice = Random(0)
    tokens = [TOKENS[kind](dice) for _ in range(1000)]
    assert [token for token in tokens if answer_to([token]) is not None] == []
