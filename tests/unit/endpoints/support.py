"""What the tests of endpoints share: a client without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast
from unittest.mock import create_autospec

from hubbub import Connection
from hubbub.endpoints.caller import Caller

HANDSHAKE: dict[str, Any] = {
    "type": "websocket",
    "path": "/live/acme",
    "path_params": {"tenant": "acme"},
    "query_string": b"lang=de",
    "headers": [(b"host", b"app.example"), (b"x-key", b"secret"), (b"cookie", b"session=s1; theme=dark")],
}


def a_connection() -> Connection:
    return cast("Connection", create_autospec(Connection, instance=True))


def a_caller(**arguments: Any) -> Caller:
    return Caller({**HANDSHAKE}, **arguments)


def run(call: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(call)
