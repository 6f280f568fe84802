"""Our client for pages, and the official SDK for JavaScript, in a real browser: the same lines run on both.

The server says what the test has it say. Where the SDK is known to do otherwise, the test runs with ours alone.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Error, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from hubbub.client import BrowserClient
from tests.browser import scripted
from tests.browser.conftest import Console
from tests.browser.scripted import DEADLINE_S, mute_server, serving
from tests.integration.sdk_js import JS, require_packages

pytestmark = pytest.mark.browser

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>A page with a client</title>
<link rel="icon" href="data:,">
<script type="module">
  const modules = { ours: await import("/hubbub/hubbub.js"), theirs: await import("/sdk/index.mjs") };
  const plain = (context) => JSON.parse(JSON.stringify(context));
  const watch = (object, prefix, events) => {
    const { seen } = window; // of this test: clients of the one before may still end
    for (const event of events) object.on(event, (context) => seen.push([prefix + event, plain(context)]));
  };
  const of_rooms = ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"];
  window.begin = (...args) => {
    window.client = new Centrifuge(...args);
    watch(client, "", [...of_rooms, "state", "connecting", "connected", "disconnected", "message"]);
    client.connect();
  };
  window.room = (name, options) => {
    const room = client.newSubscription(name, options);
    watch(room, `${name} `, of_rooms);
    room.subscribe();
  };
  window.outcome = (promise) => promise.then(
    (value) => ({ value: value ?? null }),
    ({ code, message }) => ({ code, message }),
  );
  const [names, { setTimeout }, { random }, { now }] = [new Set(Object.keys(window)), window, Math, performance];
  /** Begins a test with a module, in a page as it was when it was loaded. */
  window.use = (name) => {
    for (const each of Object.keys(window)) if (each !== "use" && !names.has(each)) delete window[each];
    Object.assign(window, { setTimeout, seen: [], ...modules[name] });
    Math.random = random;
    performance.now = now;
    delete navigator.onLine;
  };
</script>
"""

ours = pytest.mark.parametrize("module", ["ours"])
EPOCH = "abcdefgh"


class Peer(scripted.Peer):
    """One socket of the page, as the server has it."""

    frames: list[str]
    _commands: list[Any]

    def command(self) -> Any:
        """The next command, without pongs."""
        if not hasattr(self, "frames"):
            self.frames, self._commands = [], []
        while not self._commands:
            frame = self.receive()
            assert isinstance(frame, str)
            self.frames.append(frame)
            self._commands += [each for each in map(json.loads, frame.split("\n")) if each]
        return self._commands.pop(0)

    def asked(self, kind: str) -> Any:
        """The next command, which must be of a kind. It is answered by `answer`."""
        command = self.command()
        assert kind in command, command
        self._answered = kind, command.get("id")
        command[kind].pop("flag", None)  # the SDK offers what this server does not take
        return command[kind]

    def answer(self, **result: object) -> None:
        kind, number = self._answered
        self.send({"id": number, kind: result})

    def refuse(self, code: int, message: str = "no", *, temporary: bool = False) -> None:
        error = {"code": code, "message": message, **({"temporary": True} if temporary else {})}
        self.send({"id": self._answered[1], "error": error})

    def welcome(self, **result: object) -> Any:
        """Answers `connect`. Returns what it said."""
        said = self.asked("connect")
        self.answer(**{"client": "c1", "version": "test", "ping": 25, "pong": True, **result})
        return said

    def admit(self, **result: object) -> Any:
        """Answers `subscribe`. Returns what it said."""
        said = self.asked("subscribe")
        self.answer(**result)
        return said

    def push(self, channel: str, **push: object) -> None:
        self.send({"push": {"channel": channel, **push}})

    def publish(self, channel: str, data: object, offset: int = 0) -> None:
        self.push(channel, pub={"data": data, **({"offset": offset} if offset else {})})


def stored(offset: int) -> dict[str, Any]:
    """The reply of a room with a history."""
    return {"recoverable": True, "positioned": True, "epoch": EPOCH, "offset": offset}


def recovered(offset: int, *data: object) -> dict[str, Any]:
    """The reply to a client that comes back to a room after a message, and missed these."""
    missed = [{"data": each, "offset": offset + n} for n, each in enumerate(data, start=1)]
    return {**stored(offset), "was_recovering": True, "recovered": True, "publications": missed}


class Client:
    """The client in the page, and what it told the page."""

    def __init__(self, page: Page, server: scripted.ScriptedServer[Peer], module: str) -> None:
        self.page = page
        self.server = server
        self.run("(module) => use(module)", module)

    def start(self, script: str = "{}", url: str = "") -> None:
        """Starts without waiting, with the options that a script yields. Retries come at once unless they say so."""
        self.run(
            f"(url) => begin(url, {{ minReconnectDelay: 1, maxReconnectDelay: 2, ...{script} }})",
            url or self.server.url,
        )

    def connect(self, script: str = "{}", **welcome: object) -> Peer:
        self.start(script)
        return self.connected(**welcome)

    def connected(self, **welcome: object) -> Peer:
        """The next connection of the client, welcomed."""
        count = len(self.seen("connected"))
        peer = self.server.accept()
        peer.welcome(**welcome)
        self.seen("connected", count + 1)
        return peer

    def subscribe(self, peer: Peer, room: str = "lobby", options: str = "{}", **reply: object) -> Any:
        """Subscribes to a room. Returns the command."""
        self.run(f"(room) => window.room(room, {options})", room)
        said = peer.admit(**reply)
        self.seen(f"{room} subscribed", 1)
        return said

    def run(self, script: str, argument: object = None) -> Any:
        return self.page.evaluate(script, argument)

    def until(self, condition: str) -> None:
        self.page.wait_for_function(condition)

    def seen(self, event: str, count: int | None = None) -> list[Any]:
        """The contexts of an event, after waiting until there are at least so many."""
        if count is not None:
            self.page.wait_for_function(
                "([event, count]) => seen.filter(([each]) => each === event).length >= count", arg=[event, count]
            )
        return [context for each, context in self.run("seen") if each == event]

    def received(self, count: int, room: str = "lobby") -> list[Any]:
        """The data of exactly so many messages in a room."""
        found = [context["data"] for context in self.seen(f"{room} publication", count)]
        assert len(found) == count, found
        return found

    def read(self, peer: Peer) -> None:
        """Returns once the page has handled everything that the peer has sent."""
        count = len(self.seen("message"))
        peer.send({"push": {"message": {"data": "the end"}}})
        self.seen("message", count + 1)


def rule(client: Client, script: str) -> None:
    """Has Math.random() return what a script says."""
    client.run(f"() => {{ Math.random = {script}; }}")


@pytest.fixture(params=["ours", "theirs"])
def module(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def _page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


async def _greet(websocket: WebSocket) -> None:
    await websocket.accept()
    command = await websocket.receive_json()
    await websocket.send_json({"id": command["id"], "connect": {"client": websocket.url.path}})
    await websocket.receive()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    require_packages()
    sdk = StaticFiles(directory=JS / "node_modules" / "centrifuge" / "build")
    mounts = [Mount("/hubbub", BrowserClient()), Mount("/sdk", sdk)]
    with serving(Starlette(routes=[Route("/", _page), WebSocketRoute("/greet", _greet), *mounts])) as url:
        yield url


@pytest.fixture
def server() -> Iterator[scripted.ScriptedServer[Peer]]:
    server = scripted.ScriptedServer(Peer)
    yield server
    server.stop()


def opened(page: Page, site: str) -> Page:
    page.goto(site)
    page.wait_for_function("'use' in window")
    return page


@pytest.fixture(scope="module")
def tab(browser: Browser, site: str) -> Iterator[Page]:
    """One page for all tests: a context for each, or loading it for each, would take most of their time."""
    context = browser.new_context()
    context.set_default_timeout(DEADLINE_S * 1000)
    yield opened(context.new_page(), site)
    context.close()


@pytest.fixture
def client(server: scripted.ScriptedServer[Peer], tab: Page, module: str, console: Console) -> Iterator[Client]:
    with console.watch(tab.context):
        yield Client(tab, server, module)
    tab.evaluate("() => window.client?.disconnect()")


@pytest.fixture(scope="module")
def timed_tab(browser: Browser, site: str) -> Iterator[tuple[Page, Iterator[int]]]:
    """A page whose clock the tests move, and the hours at which they may begin: it goes forward only."""
    context = browser.new_context()
    context.set_default_timeout(DEADLINE_S * 1000)
    page = context.new_page()
    page.clock.install(time=0)
    yield opened(page, site), itertools.count(1)
    context.close()


@pytest.fixture
def timed(
    server: scripted.ScriptedServer[Peer], timed_tab: tuple[Page, Iterator[int]], module: str, console: Console
) -> Iterator[Client]:
    """A client whose clock only the test moves."""
    page, hours = timed_tab
    client = Client(page, server, module)
    page.clock.pause_at(next(hours) * 3_600)
    with console.watch(page.context):
        yield client
    page.evaluate("() => window.client?.disconnect()")


# Connecting, and its end


def test_it_connects_when_it_is_told_to(client: Client) -> None:
    state = client.run(
        "async (url) => { const client = new Centrifuge(url); await 0; return client.state; }", "ws://x/"
    )
    assert state == "disconnected"
    client.connect()
    client.run("() => client.connect()")
    assert [event for event, _ in client.run("seen")] == ["state", "connecting", "state", "connected"]
    assert client.server.idle


def test_it_tells_the_page_each_state(client: Client) -> None:
    client.connect(data={"hello": "ann"}).close(3000, "because")
    client.connected()
    client.run("() => client.disconnect()")
    names = [event for event, _ in client.run("seen")]
    each = ["state", "connecting", "state", "connected"]
    assert names == [*each, *each, "state", "disconnected"]
    assert client.seen("connecting") == [
        {"code": 0, "reason": "connect called"},
        {"code": 3000, "reason": "because"},
    ]
    assert client.seen("connected")[0] == {"client": "c1", "transport": "websocket", "data": {"hello": "ann"}}
    assert client.seen("disconnected") == [{"code": 0, "reason": "disconnect called"}]
    assert client.seen("state")[0] == {"newState": "connecting", "oldState": "disconnected"}
    assert client.run("client.state === State.Disconnected")


def test_connect_says_who_the_page_is(client: Client) -> None:
    client.start('{ token: "t", data: { page: 1 }, name: "shop", version: "1.2" }')
    assert client.server.accept().welcome() == {"token": "t", "data": {"page": 1}, "name": "shop", "version": "1.2"}


def test_codes_after_which_it_comes_back(client: Client) -> None:
    codes = (1000, 1001, 1002, 1003, 1007, 1008, 1010, 1011, 1012, 1013, 1014, 3000, 3499, 4000, 4499)
    peer = client.connect()
    for code in codes:
        peer.close(code, "because")
        peer = client.connected()
    told = [(code, "because") if code >= 3000 else (1, "transport closed") for code in codes]
    assert [tuple(each.values()) for each in client.seen("connecting")[1:]] == told


def test_it_comes_back_after_a_close_without_code_and_a_lost_connection(client: Client) -> None:
    client.connect().close_without_code()
    client.connected().cut()
    client.connected()
    assert [each["code"] for each in client.seen("connecting")] == [0, 1, 1]


def test_codes_after_which_it_stops(client: Client) -> None:
    codes = (1009, 3500, 3999, 4500, 4999)
    peer = client.connect()
    for count, code in enumerate(codes, start=1):
        peer.close(code, "because")
        client.seen("disconnected", count)
        client.run("() => { dispatchEvent(new Event('offline')); dispatchEvent(new Event('online')); }")
        assert client.run("client.state") == "disconnected"
        assert client.server.idle
        client.run("() => client.connect()")
        peer = client.connected()
    told = [(code, "because") if code >= 3000 else (3, "message size limit exceeded") for code in codes]
    assert [tuple(each.values()) for each in client.seen("disconnected")] == told


def test_a_handshake_that_is_refused_with_any_status_is_told_and_tried_again(client: Client) -> None:
    client.server.refusals = [200, 204, 301, 400, 401, 403, 404, 426, 429, 500, 502, 503, 504]
    client.start()
    client.connected()
    assert not client.server.refusals
    errors = [(each["type"], each["transport"], each["error"]["code"]) for each in client.seen("error")]
    assert errors == [("transport", "websocket", 2)] * 13


def test_a_temporary_refusal_of_the_connection_is_told_and_tried_again(client: Client) -> None:
    client.start()
    peer = client.server.accept()
    peer.asked("connect")
    peer.refuse(503, "later", temporary=True)
    client.connected()
    told = client.seen("error")[0]
    assert (told["type"], told["error"]["code"], told["error"]["message"]) == ("connect", 503, "later")


def test_a_final_refusal_of_the_connection_stops(client: Client) -> None:
    client.start()
    peer = client.server.accept()
    peer.asked("connect")
    peer.refuse(403, "not you")
    assert client.seen("disconnected", 1) == [{"code": 403, "reason": "not you"}]


@ours
def test_an_answer_to_connect_without_a_result_is_a_welcome(client: Client) -> None:
    client.start()
    peer = client.server.accept()
    peer.send({"id": peer.command()["id"]})
    client.seen("connected", 1)


def test_disconnect_tells_the_server_and_nothing_arrives_afterwards(client: Client) -> None:
    peer = client.connect()
    client.subscribe(peer)
    client.run("() => client.getSubscription('lobby').on('publication', () => client.disconnect())")
    publications = [json.dumps({"push": {"channel": "lobby", "pub": {"data": n}}}) for n in range(3)]
    peer.send("\n".join(publications[:1]))
    assert peer.gone.wait(DEADLINE_S)
    assert client.received(1) == [0]
    assert peer.connection.close_code in (1000, 1005)


@ours
def test_nothing_of_a_frame_arrives_after_disconnect(client: Client) -> None:
    peer = client.connect()
    client.subscribe(peer)
    client.run("() => client.getSubscription('lobby').on('publication', () => client.disconnect())")
    peer.send("\n".join(json.dumps({"push": {"channel": "lobby", "pub": {"data": n}}}) for n in range(3)))
    client.seen("disconnected", 1)
    assert client.received(1) == [0]


def test_disconnect_while_the_token_is_on_its_way_opens_no_socket(client: Client) -> None:
    client.start("{ getToken: () => new Promise((resolve) => { window.give = resolve; }) }")
    client.until("window.give !== undefined")
    client.run("async () => { client.disconnect(); give('t'); await new Promise((done) => setTimeout(done)); }")
    assert [event for event, _ in client.run("seen")] == ["state", "connecting", "state", "disconnected"]
    assert client.server.idle


def test_disconnect_during_the_handshake_gives_it_up(client: Client, console: Console) -> None:
    with mute_server() as (url, listener):
        client.start(url=url)
        dialled, _ = listener.accept()
        dialled.settimeout(DEADLINE_S)
        client.run("() => client.disconnect()")
        with dialled:
            while dialled.recv(4096):
                pass
    assert client.seen("disconnected") == [{"code": 0, "reason": "disconnect called"}]


@ours
def test_disconnect_right_after_connect_opens_no_socket(client: Client) -> None:
    client.run("async (url) => { begin(url); client.disconnect(); await 0; }", client.server.url)
    assert [event for event, _ in client.run("seen")] == ["state", "connecting", "state", "disconnected"]
    assert client.server.idle


def test_disconnect_ends_a_wait(timed: Client) -> None:
    timed.connect("{ minReconnectDelay: 60000, maxReconnectDelay: 60000 }").close(3000)
    timed.seen("connecting", 2)
    timed.run("() => client.disconnect()")
    timed.page.clock.fast_forward(120_000)
    assert timed.run("client.state") == "disconnected"
    assert timed.server.idle


def test_connect_after_disconnect_goes_on_where_it_was(client: Client) -> None:
    peer = client.connect()
    client.subscribe(peer, **stored(5))
    client.run("() => { client.disconnect(); client.connect(); }")
    peer = client.connected()
    assert peer.admit() == {"channel": "lobby", "recover": True, "epoch": EPOCH, "offset": 5}


def test_disconnect_and_connect_end_a_wait(client: Client) -> None:
    rule(client, "() => 1")
    client.connect("{ minReconnectDelay: 600000, maxReconnectDelay: 600000 }").close(3000)
    client.seen("connecting", 2)
    client.run("() => { client.disconnect(); client.connect(); }")
    client.connected()


def test_disconnect_in_a_handler_of_connecting_is_heeded(client: Client) -> None:
    client.connect()
    client.run("() => client.on('connecting', () => client.disconnect())")
    client.run("() => { client.disconnect(); client.connect(); }")
    client.seen("disconnected", 2)
    assert client.run("client.state") == "disconnected"


# When to come back


@ours
def test_delays_grow_and_are_random_from_nothing_to_a_bound(client: Client) -> None:
    rule(client, "((values) => () => values.shift() ?? 0.5)([0, 0.25, 0.999])")
    client.run(
        """() => {
            const real = window.setTimeout;
            window.delays = [];
            window.setTimeout = (react, ms) => { if (ms < 200) delays.push(ms); return real(react, ms); };
        }"""
    )
    client.start("{ minReconnectDelay: 8, maxReconnectDelay: 100 }")
    for _ in range(6):  # a server that accepts and closes at once is not hammered
        peer = client.server.accept()
        peer.welcome()
        peer.close(3000)
    client.until("delays.length >= 6")
    assert client.run("delays.slice(0, 6)") == [0, 4, 32, 32, 50, 50]


@ours
@pytest.mark.parametrize("code", [1012, 1013, 3001])
def test_a_server_that_sends_many_away_gets_them_back_over_a_longer_time(timed: Client, code: int) -> None:
    rule(timed, "() => 0.5")
    timed.connect("{ minReconnectDelay: 10000, maxReconnectDelay: 60000 }").close(code)
    timed.seen("connecting", 2)
    timed.page.clock.fast_forward(19_999)
    assert timed.server.idle
    timed.page.clock.fast_forward(1)
    timed.connected()


@ours
@pytest.mark.parametrize(("held_ms", "delay_ms"), [(4_999, 2_000), (5_000, 1_000)])
def test_the_backoff_begins_anew_once_a_connection_has_held(timed: Client, held_ms: int, delay_ms: int) -> None:
    rule(timed, "() => 1")
    timed.connect("{ minReconnectDelay: 1000, maxReconnectDelay: 9000 }").close(3000)
    timed.seen("connecting", 2)
    timed.page.clock.fast_forward(1_000)
    peer = timed.connected()
    timed.page.clock.fast_forward(held_ms)
    peer.close(3000)
    timed.seen("connecting", 3)
    timed.page.clock.fast_forward(delay_ms - 1)
    assert timed.server.idle
    timed.page.clock.fast_forward(1)
    timed.connected()


# The network and the page


@ours
def test_it_tries_at_once_when_the_network_comes_back(client: Client) -> None:
    peer = client.connect("{ minReconnectDelay: 600000, maxReconnectDelay: 600000 }")
    client.page.context.set_offline(True)
    try:
        peer.cut()
        client.seen("connecting", 2)
    finally:
        client.page.context.set_offline(False)
    client.connected()


@ours
def test_it_tries_at_once_when_its_page_comes_into_view(client: Client) -> None:
    rule(client, "() => 1")
    client.connect("{ minReconnectDelay: 600000, maxReconnectDelay: 600000 }").close(3000)
    client.seen("connecting", 2)
    client.run("() => document.dispatchEvent(new Event('visibilitychange'))")
    client.connected()


@ours
def test_a_browser_that_says_offline_while_requests_get_through_is_not_believed(client: Client) -> None:
    peer = client.connect("{ minReconnectDelay: 600000, maxReconnectDelay: 600000 }")
    client.run("() => dispatchEvent(new Event('offline'))")
    peer.asked("ping")
    peer.refuse(108, "not available")
    client.run("() => { window.answer = outcome(client.rpc('still')); }")
    peer.asked("rpc")
    peer.answer(data="here")
    assert client.run("answer") == {"value": {"data": "here"}}
    assert client.run("client.state") == "connected"


@ours
def test_it_tries_slowly_while_the_browser_says_offline(timed: Client) -> None:
    rule(timed, "() => 0")
    timed.run("() => Object.defineProperty(navigator, 'onLine', { value: false, configurable: true })")
    timed.connect("{ minReconnectDelay: 1000, maxReconnectDelay: 20000 }").close(3000)
    timed.seen("connecting", 2)
    timed.page.clock.fast_forward(19_999)
    assert timed.server.idle
    timed.page.clock.fast_forward(1)
    timed.connected()


@ours
@pytest.mark.parametrize(("event", "ping_s"), [("offline", 25), ("online", 25), ("visibilitychange", 0)])
def test_a_line_that_is_dead_is_found_out_when_the_network_or_the_page_changes(
    timed: Client, event: str, ping_s: int
) -> None:
    timed.connect(ping=ping_s)
    target = "document" if event == "visibilitychange" else "window"
    timed.run(f"() => {target}.dispatchEvent(new Event('{event}'))")
    timed.page.clock.fast_forward(5_000)
    assert timed.seen("connecting", 2)[1] == {"code": 2, "reason": "no ping"}
    timed.page.clock.fast_forward(10)
    timed.connected()


@ours
def test_a_page_that_goes_into_the_cache_closes_and_comes_back_with_it(client: Client) -> None:
    peer = client.connect()
    client.run("() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: false }))")
    assert client.run("client.state") == "connected"
    client.run("() => dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    assert peer.gone.wait(DEADLINE_S)
    assert client.run("client.state") == "connecting"
    assert client.server.idle
    client.run("() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    client.connected()


@ours
def test_a_socket_that_is_closing_is_sent_nothing(client: Client) -> None:
    """A browser logs an error for that, and counts it among what is buffered."""
    client.connect(
        "{ websocket: class extends WebSocket { constructor(...args) { window.socket = super(...args); } } }"
    )
    state, buffered = client.run(
        """async () => {
            socket.close();
            dispatchEvent(new Event('offline'));
            client.send('late');
            await new Promise((done) => setTimeout(done));
            return [socket.readyState, socket.bufferedAmount];
        }"""
    )
    assert state >= 2  # CLOSING
    assert buffered == 0


# Servers that say nothing


def test_pings_are_answered(client: Client) -> None:
    peer = client.connect()
    for _ in range(3):
        peer.send("{}")
        assert peer.receive() == "{}"


def test_a_server_that_does_not_want_pongs_gets_none(client: Client) -> None:
    peer = client.connect(pong=False)
    peer.send("{}")
    client.run("() => { client.send('next'); }")
    assert peer.command() == {"send": {"data": "next"}}
    assert len(peer.frames) == 2


@ours
@pytest.mark.parametrize(("ping_s", "patience_ms"), [(25, 35_000), (4, 6_000)])
def test_a_silent_server_is_found_out_within_one_and_a_half_ping_intervals(
    timed: Client, ping_s: int, patience_ms: int
) -> None:
    peer = timed.connect(ping=ping_s)
    timed.page.clock.run_for(patience_ms - 1_000)
    peer.send("{}")
    assert peer.receive() == "{}"
    timed.page.clock.run_for(patience_ms - 1)
    assert timed.run("client.state") == "connected"
    timed.page.clock.run_for(1)
    assert timed.seen("connecting", 2)[1] == {"code": 2, "reason": "no ping"}
    timed.page.clock.run_for(10)
    timed.connected()
    assert peer.gone.wait(DEADLINE_S)


@ours
def test_a_page_whose_timers_stood_still_asks_before_it_gives_up(timed: Client) -> None:
    peer = timed.connect()
    timed.run("() => { performance.now = ((real) => () => real() + 600000)(performance.now.bind(performance)); }")
    timed.page.clock.fast_forward(35_000)
    peer.asked("ping")
    peer.refuse(108)
    timed.read(peer)
    timed.page.clock.fast_forward(5_000)
    assert timed.run("client.state") == "connected"


@ours
@pytest.mark.parametrize("answers", ["nothing", "a socket"])
def test_a_handshake_or_a_connect_that_nobody_answers_is_given_up_and_told(timed: Client, answers: str) -> None:
    with mute_server() as (url, listener):
        timed.start(url=url if answers == "nothing" else "")
        dialled = listener.accept()[0] if answers == "nothing" else timed.server.accept()
        if isinstance(dialled, Peer):
            dialled.asked("connect")
        timed.page.clock.fast_forward(4_999)
        assert not timed.seen("error")
        timed.page.clock.fast_forward(1)
        told = timed.seen("error", 1)[0]
        assert told["error"] == {"code": 1, "message": "timeout", "temporary": False}
        timed.run("() => client.disconnect()")
        if not isinstance(dialled, Peer):
            dialled.close()


def test_a_request_that_nobody_answers_times_out(timed: Client) -> None:
    peer = timed.connect()
    timed.run("() => { window.answer = outcome(client.rpc('slow', null)); }")
    peer.asked("rpc")
    timed.page.clock.run_for(6_000)
    assert timed.run("answer") == {"code": 1, "message": "timeout"}
    peer.answer(data="late")
    timed.read(peer)
    assert timed.run("client.state") == "connected"


def test_what_the_client_does_not_know_is_ignored(client: Client) -> None:
    peer = client.connect()
    client.subscribe(peer)
    peer.send({"push": {"channel": "lobby", "later": {}}}, {"push": {}}, {"id": 999, "rpc": {"data": 1}}, {"id": 999})
    peer.push("elsewhere", pub={"data": 1})
    peer.push("elsewhere", unsubscribe={})
    client.read(peer)
    assert client.received(0) == client.seen("publication") == client.seen("unsubscribed") == []
    assert client.run("client.state") == "connected"


@ours
def test_a_frame_that_is_no_json_is_told_by_a_new_connection(client: Client) -> None:
    client.connect().send("<html>")
    client.connected()


# Tokens and data


def test_a_token_is_fetched_if_there_is_none_and_only_then(client: Client) -> None:
    client.start("{ getToken: async () => `t${window.n = (window.n ?? 0) + 1}` }")
    peer = client.server.accept()
    assert peer.welcome()["token"] == "t1"
    peer.close(3000)
    peer = client.server.accept()
    peer_token = peer.asked("connect")["token"]
    assert peer_token == "t1"
    peer.refuse(109, "token expired")
    assert client.server.accept().welcome()["token"] == "t2"
    client.seen("connected", 2)


def test_a_token_function_that_fails_is_told_and_asked_again(client: Client) -> None:
    client.start(
        """{
            getToken: async () => {
                window.n = (window.n ?? 0) + 1;
                if (n < 3) throw new Error('signed out');
                return 't';
            },
        }"""
    )
    client.connected()
    told = client.seen("error")
    assert [(each["type"], each["error"]["code"]) for each in told] == [("connectToken", 5)] * 2
    assert "signed out" in told[0]["error"]["message"]


def test_options_that_are_undefined_are_not_given(client: Client) -> None:
    client.start("{ token: 'old', getToken: undefined, getData: undefined, data: undefined }")
    peer = client.server.accept()
    said = peer.asked("connect")
    assert said["token"] == "old"
    assert "data" not in said
    peer.refuse(109, "token expired")
    assert client.seen("disconnected", 1) == [{"code": 1, "reason": "unauthorized"}]


@ours
def test_a_token_function_that_throws_at_once_is_told_and_asked_again(client: Client) -> None:
    client.start("{ getToken: () => { if ((window.n = (window.n ?? 0) + 1) < 2) throw new Error('no'); return 't'; } }")
    client.connected()
    assert client.seen("error")[0]["error"] == {"code": 5, "message": "no", "temporary": False}


@ours
@pytest.mark.parametrize(
    ("function", "kind", "code"), [("getToken", "connectToken", 5), ("getData", "connectData", 12)]
)
def test_a_function_that_never_answers_is_told_and_asked_again(
    timed: Client, function: str, kind: str, code: int
) -> None:
    timed.start(f"{{ {function}: () => (window.n = (window.n ?? 0) + 1) < 3 ? new Promise(() => {{}}) : 'it' }}")
    for count in (1, 2):
        timed.page.clock.fast_forward(4_999)
        assert len(timed.seen("error")) == count - 1
        timed.page.clock.fast_forward(1)
        told = timed.seen("error", count)[-1]
        assert told == {"type": kind, "error": {"code": code, "message": "timeout", "temporary": False}}
        timed.page.clock.fast_forward(10)
    assert timed.server.accept().welcome()[function.removeprefix("get").lower()] == "it"


@pytest.mark.parametrize("answer", ["throw new UnauthorizedError('no')", "return null"])
def test_a_token_function_that_has_no_permission_ends_it(client: Client, answer: str) -> None:
    client.start(f"{{ getToken: async () => {{ {answer}; }} }}")
    assert client.seen("disconnected", 1) == [{"code": 1, "reason": "unauthorized"}]


def test_a_token_function_may_say_that_nobody_is_signed_in(client: Client) -> None:
    client.start("{ getToken: async () => '' }")
    assert not client.server.accept().welcome().get("token")


@ours
def test_an_expired_token_that_can_not_be_renewed_stops_and_says_why(client: Client) -> None:
    client.start("{ token: 'old' }")
    peer = client.server.accept()
    peer.asked("connect")
    peer.refuse(109, "token expired")
    assert client.seen("disconnected", 1) == [{"code": 1, "reason": "unauthorized"}]
    told = client.seen("error")[0]
    problem = "the token has expired, and there is no getToken"
    assert told == {"type": "configuration", "error": {"code": 12, "message": problem, "temporary": False}}


@ours
def test_a_connection_that_ends_with_its_token_comes_back_with_another(client: Client) -> None:
    client.start("{ token: 'old', getToken: async () => 'new' }")
    client.connected().close(3005, "connection expired")
    assert client.server.accept().welcome()["token"] == "new"
    client.seen("connected", 2)


def test_a_token_that_expires_is_replaced_in_place(timed: Client) -> None:
    timed.start("{ token: 'first', getToken: async () => 'second' }")
    peer = timed.server.accept()
    peer.welcome(expires=True, ttl=60, ping=0)
    timed.seen("connected", 1)
    timed.page.clock.fast_forward(60_000)
    assert peer.asked("refresh") == {"token": "second"}
    peer.answer(client="c1", expires=True, ttl=60)
    timed.read(peer)
    timed.page.clock.fast_forward(60_000)
    peer.asked("refresh")
    peer.refuse(101, "unauthorized")
    assert timed.seen("disconnected", 1) == [{"code": 101, "reason": "unauthorized"}]


@ours
def test_a_renewal_that_fails_is_told_and_repeated(timed: Client) -> None:
    rule(timed, "() => 1")
    timed.start(
        """{
            token: 'first',
            getToken: () => {
                window.n = (window.n ?? 0) + 1;
                if (n === 2) throw new Error('no');
                return n === 1 ? new Promise(() => {}) : 'new';
            },
        }"""
    )
    peer = timed.server.accept()
    peer.welcome(expires=True, ttl=60, ping=0)
    timed.seen("connected", 1)
    for wait_ms, count in ((60_000 + 5_000, 1), (1_000, 2)):
        timed.page.clock.run_for(wait_ms)
        peer.send("{}")
        timed.read(peer)
        assert len(timed.seen("error", count)) == count
    assert [(each["type"], each["error"]["code"], each["error"]["message"]) for each in timed.seen("error")] == [
        ("refreshToken", 6, "timeout"),
        ("refreshToken", 6, "no"),
    ]
    timed.page.clock.run_for(2_000)
    assert peer.asked("refresh") == {"token": "new"}


def test_data_is_fetched_for_every_attempt(client: Client) -> None:
    client.start("{ getData: async () => ({ n: window.n = (window.n ?? 0) + 1 }) }")
    for n in (1, 2):
        peer = client.server.accept()
        assert peer.welcome()["data"] == {"n": n}
        client.seen("connected", n)
        peer.close(3000)


@ours
def test_data_that_is_no_json_is_told_and_tried_again(client: Client) -> None:
    rule(client, "() => 1")
    client.start("{ data: 1n, minReconnectDelay: 600000, maxReconnectDelay: 600000 }")
    assert client.seen("error", 1)[0]["error"]["code"] == 12
    client.server.accept()
    client.run("() => { client.setData(1); dispatchEvent(new Event('online')); }")
    peer = client.connected()
    client.run("() => { room('lobby', { data: 1n, minResubscribeDelay: 1, maxResubscribeDelay: 2 }); }")
    told = client.seen("lobby error", 2)[0]
    assert (told["type"], told["error"]["code"]) == ("subscribeData", 12)
    client.run("() => client.getSubscription('lobby').setData(2)")
    assert peer.asked("subscribe")["data"] == 2


def test_the_token_and_the_data_can_be_replaced(client: Client) -> None:
    client.connect("{ token: 'ann', data: 1 }")
    client.run("() => { client.disconnect(); client.setToken('bob'); client.setData(2); client.connect(); }")
    said = client.server.accept().welcome()
    assert (said["token"], said["data"]) == ("bob", 2)


# Requests


def test_requests_before_the_connection_wait_for_it(client: Client) -> None:
    client.start()
    client.run("() => { window.answer = outcome(client.rpc('add', { a: 1 })); }")
    peer = client.connected()
    assert peer.asked("rpc") == {"method": "add", "data": {"a": 1}}
    peer.answer(data={"sum": 1})
    assert client.run("answer") == {"value": {"data": {"sum": 1}}}


def test_requests_wait_for_the_connection_up_to_the_timeout(timed: Client) -> None:
    timed.start()
    peer = timed.server.accept()
    timed.run(
        "() => { window.answers = [client.rpc('a', null), client.send(1), client.publish('b', 2)].map(outcome); }"
    )
    peer.asked("connect")
    timed.page.clock.fast_forward(5_000)
    assert timed.run("Promise.all(answers)") == [{"code": 1, "message": "timeout"}] * 3


def test_requests_that_waited_too_long_are_not_sent_later(timed: Client) -> None:
    timed.run(
        """(url) => {
            window.client = new Centrifuge(url);
            window.answers = [client.rpc('a', null), client.send(1), client.publish('b', 2)].map(outcome);
        }""",
        timed.server.url,
    )
    timed.page.clock.fast_forward(5_000)
    assert timed.run("Promise.all(answers)") == [{"code": 1, "message": "timeout"}] * 3
    timed.run("() => { client.connect(); window.sent = outcome(client.send('next')); }")
    peer = timed.server.accept()
    peer.welcome()
    assert peer.command() == {"send": {"data": "next"}}


def test_data_is_sent_and_received_as_the_json_that_it_is(client: Client) -> None:
    peer = client.connect()
    for script in ("{ body: 'hi' }", "[1, null]", "'text'", "'7'", "7", "false", "''"):
        client.run(f"() => {{ window.answer = outcome(client.rpc('echo', {script})); }}")
        data = peer.asked("rpc")["data"]
        assert data == client.run(f"({script})")
        peer.answer(data=data)
        assert client.run("answer") == {"value": {"data": data}}


@ours
def test_data_that_json_can_not_say_rejects_and_nothing_else_happens(client: Client) -> None:
    peer = client.connect()
    requests = "[client.rpc('a', 10n), client.send(10n), client.publish('b', 10n)]"
    assert client.run(f"Promise.all({requests}.map((each) => each.catch(({{ name }}) => name)))") == ["TypeError"] * 3
    client.run("() => { client.send('next'); }")
    assert peer.command() == {"send": {"data": "next"}}


def test_requests_end_with_the_client(client: Client) -> None:
    peer = client.connect()
    client.run("() => { window.answer = outcome(client.rpc('slow', null)); }")
    peer.asked("rpc")
    client.run("() => client.disconnect()")
    assert client.run("answer")["code"] in (3, 11)


@ours
def test_requests_end_with_their_connection(client: Client) -> None:
    peer = client.connect()
    client.run("() => { window.answer = outcome(client.rpc('slow', null)); }")
    peer.asked("rpc")
    peer.cut()
    assert client.run("answer") == {"code": 11, "message": "connection closed"}


def test_a_refused_request_rejects_with_the_code_and_the_message(client: Client) -> None:
    peer = client.connect()
    client.run("() => { window.answer = outcome(client.rpc('forbidden', null)); }")
    peer.asked("rpc")
    peer.refuse(403, "not you")
    assert client.run("answer") == {"code": 403, "message": "not you"}


def test_answers_belong_to_their_requests_in_any_order(client: Client) -> None:
    peer = client.connect()
    client.run("() => { window.answers = [1, 2].map((n) => outcome(client.rpc('echo', n))); }")
    first, second = peer.command(), peer.command()
    peer.send(*({"id": each["id"], "rpc": {"data": each["rpc"]["data"]}} for each in (second, first)))
    assert client.run("Promise.all(answers)") == [{"value": {"data": 1}}, {"value": {"data": 2}}]


def test_what_can_be_asked_of_a_room(client: Client) -> None:
    peer = client.connect()
    client.subscribe(peer)
    ann = {"client": "c1", "user": "ann", "conn_info": {"a": 1}, "chan_info": 2}
    told = {"client": "c1", "user": "ann", "connInfo": {"a": 1}, "chanInfo": 2}
    cases: list[tuple[str, str, object, dict[str, object], object]] = [
        ("publish({ n: 1 })", "publish", {"channel": "lobby", "data": {"n": 1}}, {}, {}),
        ("presence()", "presence", {"channel": "lobby"}, {"presence": {"c1": ann}}, {"clients": {"c1": told}}),
        (
            "presenceStats()",
            "presence_stats",
            {"channel": "lobby"},
            {"num_clients": 2, "num_users": 1},
            {"numClients": 2, "numUsers": 1},
        ),
        (
            f"history({{ limit: 2, since: {{ offset: 1, epoch: '{EPOCH}' }}, reverse: true }})",
            "history",
            {"channel": "lobby", "limit": 2, "since": {"offset": 1, "epoch": EPOCH}, "reverse": True},
            {"publications": [{"data": "x", "offset": 2, "tags": {"a": "b"}}], "offset": 3, "epoch": EPOCH},
            {
                "publications": [{"channel": "lobby", "data": "x", "offset": 2, "tags": {"a": "b"}}],
                "offset": 3,
                "epoch": EPOCH,
            },
        ),
    ]
    for call, kind, asked, answer, value in cases:
        client.run(f"() => {{ window.answer = outcome(client.getSubscription('lobby').{call}); }}")
        assert peer.asked(kind) == asked
        peer.answer(**answer)
        found = client.run("answer")
        for info in found["value"].get("clients", {}).values():  # of the SDK, also under the names of the protocol
            info.pop("conn_info", None)
            info.pop("chan_info", None)
        assert found == {"value": value}


def test_ready_resolves_and_rejects_with_the_connection(client: Client) -> None:
    client.start()
    client.run("() => { window.answers = [outcome(client.ready())]; }")
    client.connected()
    assert client.run("answers[0]") == {"value": None}
    assert client.run("outcome(client.ready())") == {"value": None}
    client.run("() => client.disconnect()")
    assert client.run("outcome(client.ready())")["code"] == 3


def test_messages_to_this_connection_are_events(client: Client) -> None:
    peer = client.connect()
    peer.send({"push": {"message": {"data": {"for": "you"}}}})
    assert client.seen("message", 1) == [{"data": {"for": "you"}}]


# Rooms


def test_a_room_is_told_of_in_events(client: Client) -> None:
    peer = client.connect()
    client.run("() => room('lobby')")
    assert client.seen("lobby subscribing") == [{"channel": "lobby", "code": 0, "reason": "subscribe called"}]
    assert peer.admit(**stored(4), data={"topic": "t"}) == {"channel": "lobby"}
    told = client.seen("lobby subscribed", 1)[0]
    assert told == {
        "channel": "lobby",
        "recoverable": True,
        "positioned": True,
        "streamPosition": {"epoch": EPOCH, "offset": 4},
        "wasRecovering": False,
        "recovered": False,
        "hasRecoveredPublications": False,
        "data": {"topic": "t"},
    }
    assert client.run("client.getSubscription('lobby').state === SubscriptionState.Subscribed")
    info = {"client": "c2", "user": "bob"}
    peer.push("lobby", join={"info": info})
    peer.push("lobby", pub={"data": [1, None], "offset": 5, "tags": {"a": "b"}, "info": info})
    peer.push("lobby", pub={"data": "text"})
    peer.push("lobby", leave={"info": info})
    assert client.seen("lobby leave", 1) == [{"channel": "lobby", "info": info}]
    assert client.seen("lobby join") == [{"channel": "lobby", "info": info}]
    assert client.seen("lobby publication")[0] == {
        "channel": "lobby",
        "data": [1, None],
        "offset": 5,
        "tags": {"a": "b"},
        "info": info,
    }
    assert client.received(2) == [[1, None], "text"]


def test_what_a_subscription_asks_for_is_in_its_command(client: Client) -> None:
    peer = client.connect()
    said = client.subscribe(
        peer,
        options=f"""{{
            token: 't', data: {{ a: 1 }}, positioned: true, recoverable: true, joinLeave: true,
            since: {{ offset: 3, epoch: '{EPOCH}' }},
        }}""",
    )
    assert said == {
        "channel": "lobby",
        "token": "t",
        "data": {"a": 1},
        "positioned": True,
        "recoverable": True,
        "join_leave": True,
        "recover": True,
        "offset": 3,
        "epoch": EPOCH,
    }


def test_subscriptions_go_in_one_frame_with_connect(client: Client) -> None:
    client.run("(url) => { begin(url); for (const name of ['a', 'b', 'c']) room(name); }", client.server.url)
    peer = client.server.accept()
    peer.asked("connect")
    assert [peer.command()["subscribe"]["channel"] for _ in range(3)] == ["a", "b", "c"]
    assert len(peer.frames) == 1


def test_a_room_has_one_subscription(client: Client) -> None:
    client.connect()
    client.run("() => room('lobby')")
    with pytest.raises(Error, match="lobby"):
        client.run("() => room('lobby')")
    assert client.run("Object.keys(client.subscriptions())") == ["lobby"]
    client.run("() => client.removeSubscription(client.getSubscription('lobby'))")
    assert client.run("client.getSubscription('lobby')") is None
    assert client.run("Object.keys(client.subscriptions())") == []
    assert client.seen("lobby unsubscribed")[0]["code"] == 0


def test_a_room_that_the_page_removes_is_forgotten(client: Client) -> None:
    peer = client.connect()
    client.subscribe(peer, **stored(1))
    client.run("() => client.removeSubscription(client.getSubscription('lobby'))")
    peer.cut()
    peer = client.connected()
    client.run("() => room('lobby')")
    assert peer.asked("subscribe") == {"channel": "lobby"}
    assert len(peer.frames) == 2


def test_a_refused_subscription_ends_and_a_temporary_one_is_told_and_repeated(client: Client) -> None:
    peer = client.connect()
    client.run("() => room('lobby', { minResubscribeDelay: 1, maxResubscribeDelay: 2 })")
    peer.asked("subscribe")
    peer.refuse(100, "busy", temporary=True)
    peer.asked("subscribe")
    told = client.seen("lobby error")[0]
    assert (told["channel"], told["type"], told["error"]["code"]) == ("lobby", "subscribe", 100)
    peer.refuse(103, "permission denied")
    assert client.seen("lobby unsubscribed", 1) == [{"channel": "lobby", "code": 103, "reason": "permission denied"}]
    assert client.run("outcome(client.getSubscription('lobby').ready())")["code"] == 7


def test_the_server_ends_a_subscription_for_good_or_for_now(client: Client) -> None:
    peer = client.connect()
    client.subscribe(peer, **stored(1))
    peer.publish("lobby", "two", 2)
    peer.push("lobby", unsubscribe={"code": 2500, "reason": "insufficient state"})
    assert peer.admit(**stored(9), was_recovering=True) == {
        "channel": "lobby",
        "recover": True,
        "epoch": EPOCH,
        "offset": 2,
    }
    assert client.seen("lobby subscribing", 2)[1] == {
        "channel": "lobby",
        "code": 2500,
        "reason": "insufficient state",
    }
    assert client.seen("lobby subscribed", 2)[1]["recovered"] is False
    peer.push("lobby", unsubscribe={"code": 2000, "reason": "server unsubscribe"})
    assert client.seen("lobby unsubscribed", 1)[0]["code"] == 2000


@ours
def test_a_server_that_ends_a_subscription_again_and_again_is_not_hammered(timed: Client) -> None:
    rule(timed, "() => 1")
    peer = timed.connect()
    timed.subscribe(peer)
    peer.push("lobby", unsubscribe={"code": 2501})
    timed.seen("lobby subscribing", 2)
    timed.page.clock.run_for(1)  # the first time at once
    peer.admit()
    timed.seen("lobby subscribed", 2)
    peer.push("lobby", unsubscribe={"code": 2501})
    timed.seen("lobby subscribing", 3)
    timed.page.clock.fast_forward(999)
    timed.run("() => { client.send('before'); }")
    assert "send" in peer.command()
    timed.page.clock.fast_forward(1)
    peer.admit()


def test_unsubscribe_tells_the_server_and_nothing_arrives_afterwards(client: Client) -> None:
    peer = client.connect()
    client.subscribe(peer, **stored(1))
    client.run("() => client.getSubscription('lobby').unsubscribe()")
    assert client.seen("lobby unsubscribed") == [{"channel": "lobby", "code": 0, "reason": "unsubscribe called"}]
    assert peer.asked("unsubscribe") == {"channel": "lobby"}
    peer.publish("lobby", "late", 2)
    peer.answer()
    client.read(peer)
    assert client.received(0) == []
    client.run("() => client.getSubscription('lobby').subscribe()")
    assert peer.admit() == {"channel": "lobby", "recover": True, "epoch": EPOCH, "offset": 1}  # the place was kept


def test_a_message_before_the_reply_to_its_subscription_is_not_delivered(client: Client) -> None:
    peer = client.connect()
    client.run("() => room('lobby')")
    peer.asked("subscribe")
    peer.publish("lobby", "early")
    peer.answer()
    peer.publish("lobby", "in time")
    client.seen("lobby publication", 1)
    assert client.received(1) == ["in time"]


def test_messages_in_one_frame_with_the_reply_are_delivered_in_order(client: Client) -> None:
    peer = client.connect()
    client.run("() => room('lobby')")
    number = peer.command()["id"]
    frame = [{"id": number, "subscribe": recovered(0, "a", "b")}]
    frame += [{"push": {"channel": "lobby", "pub": {"data": each, "offset": n}}} for n, each in ((3, "c"), (4, "d"))]
    peer.send("\n".join(map(json.dumps, frame)))
    assert client.received(4) == ["a", "b", "c", "d"]


@ours
@pytest.mark.parametrize("function", ["getToken", "getData"])
def test_a_function_of_a_subscription_that_never_answers_is_told_and_asked_again(timed: Client, function: str) -> None:
    peer = timed.connect()
    timed.run(
        f"""() => room('lobby', {{
            {function}: ({{ channel }}) => (window.n = (window.n ?? 0) + 1) < 2 ? new Promise(() => {{}}) : channel,
            minResubscribeDelay: 1,
        }})"""
    )
    timed.page.clock.fast_forward(5_000)
    told = timed.seen("lobby error", 1)[0]
    kind = "subscribeToken" if function == "getToken" else "subscribeData"
    assert (told["type"], told["error"]["message"]) == (kind, "timeout")
    timed.page.clock.fast_forward(10)
    assert "lobby" in peer.asked("subscribe").values()


@pytest.mark.parametrize("answer", ["throw new UnauthorizedError('no')", "return ''"])
def test_a_token_function_of_a_subscription_that_has_no_permission_ends_it(client: Client, answer: str) -> None:
    client.connect()
    client.run(f"() => room('lobby', {{ getToken: async () => {{ {answer}; }} }})")
    assert client.seen("lobby unsubscribed", 1)[0] == {"channel": "lobby", "code": 1, "reason": "unauthorized"}


def test_the_token_of_a_subscription_is_fetched_again_and_replaced_in_place(timed: Client) -> None:
    peer = timed.connect()
    timed.run(
        """() => room('lobby', {
            getToken: async ({ channel }) => `${channel} ${window.n = (window.n ?? 0) + 1}`, minResubscribeDelay: 1,
            maxResubscribeDelay: 2,
        })"""
    )
    assert peer.asked("subscribe")["token"] == "lobby 1"
    peer.refuse(109, "token expired")
    timed.seen("lobby error", 1)
    timed.page.clock.fast_forward(10)
    assert peer.asked("subscribe")["token"] == "lobby 2"
    peer.answer(expires=True, ttl=20)
    timed.seen("lobby subscribed", 1)
    timed.page.clock.fast_forward(20_000)
    assert peer.asked("sub_refresh") == {"channel": "lobby", "token": "lobby 3"}
    peer.refuse(103, "permission denied")
    assert timed.seen("lobby unsubscribed", 1)[0]["code"] == 103
    assert peer.asked("unsubscribe") == {"channel": "lobby"}


def test_a_subscription_that_nobody_answers_is_repeated_on_another_connection(timed: Client) -> None:
    peer = timed.connect()
    timed.run("() => room('lobby')")
    peer.asked("subscribe")
    timed.page.clock.run_for(6_000)
    assert timed.seen("connecting", 2)[1] == {"code": 3, "reason": "subscribe timeout"}
    timed.page.clock.fast_forward(10)
    timed.connected().asked("subscribe")


@ours
def test_a_page_that_disconnects_when_it_hears_of_an_error_stays_disconnected(timed: Client) -> None:
    peer = timed.connect()
    timed.run("() => { room('lobby'); client.getSubscription('lobby').on('error', () => client.disconnect()); }")
    peer.asked("subscribe")
    timed.page.clock.run_for(5_000)
    timed.seen("lobby error", 1)
    timed.page.clock.run_for(60_000)
    assert timed.run("client.state") == "disconnected"
    assert timed.server.idle


# Coming back to where it was


def test_a_client_that_comes_back_presents_its_places_and_gets_what_it_missed_once(client: Client) -> None:
    peer = client.connect()
    client.subscribe(peer, **stored(10))
    client.subscribe(peer, "board", **{**stored(0), "epoch": "other"})
    peer.publish("lobby", "eleven", 11)
    client.received(1)
    peer.cut()
    peer = client.connected()
    assert peer.admit(**recovered(11, "twelve", "thirteen")) == {
        "channel": "lobby",
        "recover": True,
        "epoch": EPOCH,
        "offset": 11,
    }
    assert peer.admit(**{**recovered(0), "epoch": "other"})["epoch"] == "other"
    peer.publish("lobby", "fourteen", 14)
    assert client.received(4) == ["eleven", "twelve", "thirteen", "fourteen"]
    told = client.seen("board subscribed", 2)[1]  # nothing was missed
    assert (told["wasRecovering"], told["recovered"], told["hasRecoveredPublications"]) == (True, True, False)
    assert client.seen("lobby subscribing", 2)[1] == {"channel": "lobby", "code": 1, "reason": "transport closed"}
    told = client.seen("lobby subscribed", 2)[1]
    assert (told["wasRecovering"], told["recovered"], told["hasRecoveredPublications"]) == (True, True, True)
    peer.cut()
    assert client.connected().asked("subscribe")["offset"] == 14


@pytest.mark.parametrize("epoch", [EPOCH, "another"])
def test_a_client_whose_missed_messages_are_gone_is_told_and_goes_on_from_there(client: Client, epoch: str) -> None:
    peer = client.connect()
    client.subscribe(peer, **stored(50))
    peer.cut()
    peer = client.connected()
    peer.admit(**{**stored(3), "epoch": epoch}, was_recovering=True)
    told = client.seen("lobby subscribed", 2)[1]
    assert (told["wasRecovering"], told["recovered"], told["streamPosition"]) == (
        True,
        False,
        {"epoch": epoch, "offset": 3},
    )
    peer.publish("lobby", "next", 4)
    assert client.received(1) == ["next"]
    peer.cut()
    said = client.connected().asked("subscribe")
    assert (said["epoch"], said["offset"]) == (epoch, 4)


@ours
def test_what_was_seen_is_dropped(client: Client) -> None:
    peer = client.connect()
    client.subscribe(peer, **stored(3))
    for offset, data in ((3, "old"), (4, "four"), (4, "again"), (5, "five")):
        peer.publish("lobby", data, offset)
    client.read(peer)
    assert client.received(2) == ["four", "five"]
    peer.cut()
    peer = client.connected()
    peer.admit(**{**recovered(4, "five", "six"), "offset": 4})  # a server that repeats
    peer.publish("lobby", "six", 6)
    peer.publish("lobby", "seven", 7)
    client.read(peer)
    assert client.received(4) == ["four", "five", "six", "seven"]


def test_newest_messages_that_a_newcomer_is_given_are_delivered(client: Client) -> None:
    peer = client.connect()
    client.subscribe(peer, **stored(9), publications=[{"data": n, "offset": n} for n in (8, 9)])
    peer.publish("lobby", 10, 10)
    assert client.received(3) == [8, 9, 10]


@ours
def test_the_place_has_moved_when_the_handler_runs(client: Client) -> None:
    peer = client.connect()
    client.subscribe(peer, **stored(0))
    client.run(
        """() => {
            const lobby = client.getSubscription('lobby');
            lobby.once('publication', () => { lobby.unsubscribe(); lobby.subscribe(); });
        }"""
    )
    peer.send("\n".join(json.dumps({"push": {"channel": "lobby", "pub": {"data": n, "offset": n}}}) for n in (1, 2)))
    peer.asked("unsubscribe")
    assert peer.asked("subscribe")["offset"] == 1
    peer.answer(**recovered(1, 2))
    assert client.received(2) == [1, 2]


@ours
def test_any_number_of_rooms_come_back_a_bounded_number_at_a_time(client: Client) -> None:
    peer = client.connect()
    client.run("() => { for (let n = 0; n < 200; n++) room(`room ${n}`); }")
    for _ in range(200):
        peer.admit(**stored(1))
    client.until("seen.filter(([event]) => event.endsWith(' subscribed')).length === 200")
    peer.cut()
    peer = client.server.accept()
    peer.asked("connect")
    peer.answer(client="c2")
    presented = [peer.command() for _ in range(64)]
    client.read(peer)
    assert peer.received.empty()
    assert len(peer.frames) == 1
    for each in presented:
        peer.send({"id": each["id"], "subscribe": recovered(1)})
    for _ in range(136):
        presented.append({"subscribe": peer.admit(**recovered(1))})
    assert {each["subscribe"]["channel"] for each in presented} == {f"room {n}" for n in range(200)}
    assert max(map(len, peer.frames)) < 10_000
    client.until("seen.filter(([event]) => event.endsWith(' subscribed')).length === 400")


@ours
@pytest.mark.parametrize("room", ["__proto__", "toString"])
def test_a_room_named_like_a_property_of_every_object_is_a_room(client: Client, room: str) -> None:
    peer = client.connect(subs={room: stored(1)})
    peer.publish(room, "hi", 2)
    assert client.seen("publication", 1)[0]["data"] == "hi"
    peer.cut()
    peer = client.server.accept()
    assert peer.welcome()["subs"] == {room: {"recover": True, "epoch": EPOCH, "offset": 2}}
    client.seen("unsubscribed", 1)
    client.subscribe(peer, room)


# Rooms that the server joins the client to


def test_rooms_that_the_server_joins_the_client_to_are_events_of_the_client(client: Client) -> None:
    peer = client.connect(subs={"$user": stored(7), "news": {}})
    assert {each["channel"] for each in client.seen("subscribed", 2)} == {"$user", "news"}
    told = next(each for each in client.seen("subscribed") if each["channel"] == "$user")
    assert told["streamPosition"] == {"epoch": EPOCH, "offset": 7}
    info = {"client": "c2", "user": "bob"}
    peer.publish("$user", "eight", 8)
    peer.push("news", join={"info": info})
    peer.push("news", leave={"info": info})
    peer.push("later", subscribe={})
    peer.publish("later", "hi")
    peer.push("later", unsubscribe={})
    assert client.seen("unsubscribed", 1)[0]["channel"] == "later"
    assert [(each["channel"], each["data"]) for each in client.seen("publication")] == [
        ("$user", "eight"),
        ("later", "hi"),
    ]
    assert client.seen("join") == client.seen("leave") == [{"channel": "news", "info": info}]
    peer.cut()
    peer = client.server.accept()
    assert peer.welcome(subs={"$user": recovered(8, "nine")})["subs"] == {
        "$user": {"recover": True, "epoch": EPOCH, "offset": 8}
    }
    assert {each["channel"] for each in client.seen("subscribing", 2)} == {"$user", "news"}
    assert client.seen("unsubscribed", 2)[1]["channel"] == "news"
    assert client.seen("publication", 3)[2]["data"] == "nine"


# Handlers, arguments, and the files


@ours
def test_a_handler_that_throws_is_reported_and_harms_no_other(client: Client, console: Console) -> None:
    console.expect("of the handler's own")
    client.start()
    client.run(
        """() => {
            const fail = () => { throw new Error("of the handler's own"); };
            for (const event of ['state', 'connected', 'subscribed', 'publication']) client.on(event, fail);
        }"""
    )
    peer = client.connected(subs={"news": {}})
    peer.publish("news", "hi")
    assert client.seen("publication", 1)[0]["data"] == "hi"
    client.run("() => { room('lobby'); }")
    client.run(
        """() => {
            for (const event of ['subscribed', 'publication']) {
                client.getSubscription('lobby').on(event, () => { throw new Error("of the handler's own"); });
            }
        }"""
    )
    peer.admit(**stored(0))
    peer.publish("lobby", "a", 1)
    peer.publish("lobby", "b", 2)
    assert client.received(2) == ["a", "b"]
    peer.cut()
    assert client.connected().asked("subscribe")["offset"] == 2
    client.seen("connected", 2)
    # state 3 times, connected 2, news subscribed and its publication, lobby subscribed and its 2 publications
    assert sum("of the handler's own" in text for text in console.complaints) == 10


def test_a_handler_that_was_taken_away_hears_no_more(client: Client) -> None:
    peer = client.connect()
    client.run(
        """() => {
            window.heard = [];
            const one = ({ data }) => heard.push(data);
            client.on('message', one).once('message', (context) => one({ data: 'once' }));
            window.off = () => client.off('message', one);
        }"""
    )
    peer.send({"push": {"message": {"data": 1}}}, {"push": {"message": {"data": 2}}})
    client.seen("message", 2)
    client.run("() => off()")
    peer.send({"push": {"message": {"data": 3}}})
    client.seen("message", 3)
    assert client.run("heard") == [1, "once", 2]
    client.run("() => client.removeAllListeners()")
    peer.send({"push": {"message": {"data": 4}}})
    client.run("() => { client.send('seen'); }")
    assert "send" in peer.command()
    assert len(client.seen("message")) == 3


@ours
def test_an_address_is_relative_to_the_page(client: Client) -> None:
    client.start(url="/greet")
    assert client.seen("connected", 1)[0]["client"] == "/greet"


@ours
def test_an_address_may_be_http_and_keeps_its_query(client: Client) -> None:
    client.start(url=client.server.url.replace("ws:", "http:") + "?a=1&a=%20#part")
    peer = client.connected()
    client.subscribe(peer, **stored(5))
    for again in ("", "and where the page was in the room stays out of it"):
        assert peer.url.query == "a=1&a=%20", again
        peer.cut()
        peer = client.connected()
        assert peer.admit(**recovered(5))["offset"] == 5


@ours
@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("new Centrifuge('ftp://example.com')", "no address of a WebSocket"),
        ("new Centrifuge('http://')", "Invalid URL"),
        ("new Centrifuge([])", "the list of transports is empty"),
        ("new Centrifuge([{ transport: 'sockjs', endpoint: '/' }])", 'no transport "sockjs"; there are websocket'),
        ("new Centrifuge([{ transport: 'sse', endpoint: 'ftp://x' }])", "ftp://x/ is no address of a stream"),
        ("new Centrifuge('/live', { minReconnectDelay: 0 })", "minReconnectDelay is 0"),
        ("new Centrifuge('/live', { maxReconnectDelay: 2 ** 31 })", "maxReconnectDelay is 2147483648"),
        ("new Centrifuge('/live', { timeout: '1s' })", "timeout is 1s"),
        ("new Centrifuge('/live', { getToken: 't' })", "getToken is no function"),
        ("new Centrifuge('/live', { sockjs: {} })", 'no option "sockjs"'),
        ("new Centrifuge('/live').newSubscription('a', { delta: 'fossil' })", 'no option "delta"'),
        ("new Centrifuge('/live').on('mesage', () => {})", 'no event "mesage"'),
        ("new Centrifuge('/live').on('message')", "no function"),
    ],
)
def test_wrong_arguments_throw(client: Client, script: str, problem: str) -> None:
    with pytest.raises(Error, match=re.escape(problem)):
        client.run(f"() => {{ {script}; }}")


@pytest.mark.parametrize(
    ("name", "kind", "exported"),
    [
        ("hubbub.js", "text/javascript", "Centrifuge"),
        ("hubbub.d.ts", "application/typescript", "Centrifuge"),
    ],
)
def test_the_files_are_served_and_asked_for_again(site: str, name: str, kind: str, exported: str) -> None:
    url = f"{site}/hubbub/{name}"
    answer = httpx.get(url)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert exported in answer.text
    etag = answer.headers["etag"]
    for held in (etag, f"W/{etag}", f'"other", {etag}'):
        assert httpx.get(url, headers={"If-None-Match": held}).status_code == 304
    assert httpx.get(url, headers={"If-None-Match": '"other"'}).status_code == 200
    head = httpx.head(url)
    assert (head.status_code, head.headers["content-length"]) == (200, answer.headers["content-length"])


@pytest.mark.parametrize("name", ["", "__init__.py", "..%2Fclose.py", "hubbub.js%2F..%2F__init__.py", "nothing"])
def test_nothing_else_is_served(site: str, name: str) -> None:
    assert httpx.get(f"{site}/hubbub/{name}").status_code == 404


@ours
def test_the_types_declare_what_the_module_has(client: Client, site: str) -> None:
    types = httpx.get(f"{site}/hubbub/hubbub.d.ts").text
    client.connect()
    client.run("() => room('lobby')")
    emitter = {"on", "once", "off", "removeAllListeners", "listeners", "emit"}
    for name, instance in (("Centrifuge", "client"), ("Subscription", "client.getSubscription('lobby')")):
        body = types.split(f"export class {name} ")[1].split("\n}\n")[0]
        declared = set(re.findall(r"^  (?:readonly )?(\w+)[(:<]", body, re.MULTILINE)) - {"constructor"}
        actual = set(client.run(f"() => Object.getOwnPropertyNames(Object.getPrototypeOf({instance}))"))
        assert declared == actual - {"constructor"}
    body = types.split("declare class Emitter")[1].split("\n}\n")[0]
    assert set(re.findall(r"^  (\w+)[(<]", body, re.MULTILINE)) == emitter
    exported = set(re.findall(r"^export (?:class|const) (\w+)", types, re.MULTILINE))
    assert exported == set(client.run("async () => Object.keys(await import('/hubbub/hubbub.js'))"))
