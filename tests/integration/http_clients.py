"""The clients of the HTTP API in other packages: ``cent`` for Python, and ``cent.js`` for Node.js."""

from __future__ import annotations

import asyncio
import json
import subprocess
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


class CentJs:
    """A Node.js in which cent.js runs, for all tests of a module."""

    def __init__(self) -> None:
        command = [NODE, JS / "cent.mjs"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, call: dict[str, Any]) -> dict[str, Any]:
        """Makes a call, and returns its outcome. Blocks."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        outcome: dict[str, Any] = json.loads(self._process.stdout.readline())
        return outcome

    def stop(self) -> None:
        """Ends it."""
        self._process.communicate(timeout=DEADLINE_S)


class ByCentJs(HttpClient):
    """The client for Node.js."""

    def __init__(self, node: CentJs, url: str, key: str) -> None:
        self._node = node
        self._url = url
        self._key = key

    async def call(self, method: str, **fields: Any) -> dict[str, Any]:
        name = _OF_CENT_JS.get(method, method)
        call = {"url": self._url, "key": self._key, "method": name, "params": fields}
        outcome = await asyncio.wait_for(asyncio.to_thread(self._node.ask, call), DEADLINE_S)
        if "error" in outcome:
            raise Failed(outcome["error"])  # cent.js shows the error as [object Object]
        result: dict[str, Any] = outcome["result"]
        return result


@asynccontextmanager
async def by_cent(url: str, key: str) -> AsyncIterator[ByCent]:
    """The official client for Python."""
    client = cent.AsyncClient(url, key)
    try:
        yield ByCent(client)
    finally:
        await client.close()
