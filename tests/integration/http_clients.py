"""The clients of the HTTP API in other packages: ``cent`` for Python, and ``cent.js`` for Node.js."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import cent
from cent.exceptions import CentApiResponseError

from tests.integration.sdk_js import JS, NODE
from tests.integration.support import DEADLINE_S


class Failed(Exception):
    """The API refused a request. Its text is the client's."""


class HttpClient(ABC):
    """A client of the HTTP API."""

    @abstractmethod
    async def call(self, method: str, **fields: Any) -> dict[str, Any]:
        """Calls a method, and returns the result as JSON. Raises `Failed`."""


class ByCent(HttpClient):
    """The official client for Python."""

    def __init__(self, client: cent.AsyncClient) -> None:
        self.client = client

    async def call(self, method: str, **fields: Any) -> dict[str, Any]:
        name = "".join(part.title() for part in method.split("_"))
        request = getattr(cent, f"{name}Request")(**fields)
        try:
            result = await getattr(self.client, method)(request)
        except CentApiResponseError as error:
            raise Failed(f"{error.code}: {error.message}") from error
        dumped: dict[str, Any] = result.model_dump(exclude_unset=True)
        return dumped


_OF_CENT_JS = {
    "presence": "getPresence",
    "presence_stats": "getPresenceStats",
    "history": "getHistory",
    "history_remove": "removeHistory",
    "channels": "getChannels",
    "info": "getInfo",
}


class ByCentJs(HttpClient):
    """The client for Node.js."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self, method: str, **fields: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([_OF_CENT_JS.get(method, method), fields]).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), DEADLINE_S)
        outcome = json.loads(line)
        if "error" in outcome:
            raise Failed(outcome["error"])  # cent.js shows the error as [object Object]
        result: dict[str, Any] = outcome["result"]
        return result


@asynccontextmanager
async def http_client(name: str, url: str, key: str) -> AsyncIterator[HttpClient]:
    """The client of this name: ``cent`` or ``cent.js``."""
    if name == "cent":
        client = cent.AsyncClient(url, key)
        try:
            yield ByCent(client)
        finally:
            await client.close()
        return
    process = await asyncio.create_subprocess_exec(
        NODE, JS / "cent.mjs", url, key, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield ByCentJs(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), DEADLINE_S)
