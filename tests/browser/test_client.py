"""The browser client, in a real browser, against a server that does what a test says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeAlias

import pytest
from playwright.sync_api import Browser, Error, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed

from hubbub.client import BrowserClient
from tests.browser import scripted
from tests.browser.conftest import Console
from tests.browser.scripted import DEADLINE_S, mute_server, serving

pytestmark = pytest.mark.browser

EPOCH = "aaaaaaaa"
OTHER_EPOCH = "bbbbbbbb"

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>A page with a client</title>
<link rel="icon" href="data:,">
<script type="module">
  import { HubbubClient } from "/hubbub/hubbub.js";
  const plain = (value) => (value instanceof ArrayBuffer ? { bytes: [...new Uint8Array(value)] } : value);
  window.HubbubClient = HubbubClient;
  window.events = [];
  window.start = (...args) => {
    window.client = new HubbubClient(...args);
    for (const event of ["message", "state", "sync", "reset", "dropped", "error"]) {
      client.on(event, (...values) => events.push([event, ...values.map(plain)]));
    }
  };
</script>
"""


class Peer(scripted.Peer):
    """One socket of the page, as the server has it."""

    @property
    def since(self) -> Any:
        return json.loads(self.query["since"][-1]) if "since" in self.query else None

    def sync(
        self, offset: int, *, recovered: bool = False, room: str = "lobby", epoch: str = EPOCH, id: str = "c1"
    ) -> None:
        place = {"room": room, "epoch": epoch, "offset": offset}
        self.send({"type": "sync", **place, "recovered": recovered, "connection_id": id})


ScriptedServer: TypeAlias = scripted.ScriptedServer[Peer]


class Client:
    """The client in the page, and what it told the page."""

    def __init__(self, page: Page, server: ScriptedServer) -> None:
        self.page = page
        self.server = server

    def start(self, **options: object) -> None:
        """Starts without waiting; retries come at once, unless the options say otherwise."""
        self.run("([url, options]) => start(url, options)", [self.server.url, {"minDelayMs": 1, **options}])

    def open(self, **options: object) -> Peer:
        self.start(**options)
        peer = self.server.accept()
        self.until("client.state === 'open'")
        return peer

    def run(self, script: str, argument: object = None) -> Any:
        return self.page.evaluate(script, argument)

    def until(self, condition: str) -> None:
        self.page.wait_for_function(condition)

    def events(self, kind: str, count: int | None = None) -> list[Any]:
        """What happened of a kind, after waiting until it is at least so many."""
        if count is not None:
            self.page.wait_for_function(
                "([kind, count]) => events.filter(([each]) => each === kind).length >= count", arg=[kind, count]
            )
        found = [event[1:] for event in self.run("events") if event[0] == kind]
        return [each[0] if len(each) == 1 else each for each in found]

    def messages(self, count: int) -> list[Any]:
        """The data of exactly so many messages."""
        found = [data for data, meta in self.events("message", count)]
        assert len(found) == count, found
        return found

    def waits(self, count: int) -> list[Any]:
        """The details of the first waits."""
        self.until(f"events.filter(([kind, state]) => kind === 'state' && state === 'waiting').length >= {count}")
        return [detail for state, detail in self.events("state") if state == "waiting"]

    def read(self, peer: Peer) -> None:
        """Returns once the page has handled everything that the peer has sent."""
        peer.send({"type": "dropped", "room": "the end", "count": 0})
        self.until("events.some(([kind, event]) => kind === 'dropped' && event.room === 'the end')")
        self.run("() => { events = events.filter(([kind, event]) => event?.room !== 'the end'); }")

    def position(self, room: str = "lobby") -> Any:
        return self.run("(room) => client.positions.get(room)", room)


def placed(offset: int, *data: object, room: str = "lobby", epoch: str = EPOCH) -> dict[str, object]:
    """A positioned text message; without data it is a position only."""
    return {"room": room, "epoch": epoch, "offset": offset, **({"data": data[0]} if data else {})}


def placed_bytes(offset: int, data: bytes, *, room: str = "lobby", epoch: str = EPOCH) -> bytes:
    name = room.encode()
    return b"HUB1" + bytes([len(name)]) + epoch.encode() + offset.to_bytes(8, "big") + name + data


async def _page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


async def _greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json({"path": websocket.url.path})
    await websocket.receive()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    routes = [Route("/", _page), WebSocketRoute("/greet", _greet), Mount("/hubbub", BrowserClient())]
    with serving(Starlette(routes=routes)) as url:
        yield url


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = scripted.ScriptedServer(Peer)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    """One page for all tests that leave nothing behind in it: a context for each would take most of their time."""
    context = browser.new_context()
    context.set_default_timeout(DEADLINE_S * 1000)
    yield context.new_page()
    context.close()


@pytest.fixture
def client(server: ScriptedServer, site: str, tab: Page, console: Console) -> Iterator[Client]:
    tab.goto(site)
    with console.watch(tab.context):
        yield Client(tab, server)
    tab.evaluate("() => window.client?.close()")


@pytest.fixture
def timed(server: ScriptedServer, site: str, page: Page) -> Client:
    """A client whose clock only the test moves, in a page of its own: a clock can't be taken away again."""
    page.clock.install(time=0)
    page.goto(site)
    page.clock.pause_at(3_600)
    return Client(page, server)


# Messages


def test_json_text_and_bytes_arrive_as_what_they_are(client: Client) -> None:
    peer = client.open()
    peer.send({"body": "hi"}, [1, None], "not { JSON", "", b"\x00\xff")
    assert client.messages(5) == [{"body": "hi"}, [1, None], "not { JSON", "", {"bytes": [0, 255]}]
    assert all(meta == {"room": None, "position": None, "replayed": False} for _, meta in client.events("message"))


def test_send_chooses_the_frame_by_the_value(client: Client) -> None:
    peer = client.open()
    sent = client.run(
        """() => [{ body: "hi" }, "text", 7, null, new Uint8Array([1, 2]), new Uint8Array([3]).buffer]
            .map((value) => client.send(value))"""
    )
    assert sent == [True] * 6
    assert [peer.receive() for _ in range(6)] == ['{"body":"hi"}', "text", "7", "null", b"\x01\x02", b"\x03"]


def test_send_says_false_when_no_socket_is_open(client: Client) -> None:
    assert client.run("(url) => { start(url); return client.send('early'); }", client.server.url) is False
    peer = client.server.accept()
    client.until("client.state === 'open'")
    assert client.run("() => { client.close(); return client.send('late'); }") is False
    assert peer.gone.wait(DEADLINE_S)
    assert peer.received.empty()


def test_send_throws_for_what_json_cannot_say(client: Client) -> None:
    client.open()
    for value in ("undefined", "() => 1", "10n"):
        with pytest.raises(Error, match="TypeError"):
            client.run(f"() => {{ client.send({value}); }}")


def test_positioned_messages_are_unwrapped_and_move_the_position(client: Client) -> None:
    peer = client.open()
    peer.sync(4)
    peer.send(placed(5, {"body": "hi"}), placed(6, "text"), placed(7, None))
    assert client.messages(3) == [{"body": "hi"}, "text", None]
    meta = client.events("message")[0][1]
    assert meta == {"room": "lobby", "position": {"epoch": EPOCH, "offset": 5}, "replayed": False}
    assert client.position() == {"epoch": EPOCH, "offset": 7}


def test_the_position_has_moved_when_the_handler_runs(client: Client) -> None:
    client.start()
    client.run("() => client.on('message', () => { window.seen = client.positions.get('lobby').offset; })")
    peer = client.server.accept()
    peer.sync(0)
    peer.send(placed(1, "a"))
    client.until("window.seen === 1")


def test_positioned_bytes_are_unwrapped_and_move_the_position(client: Client) -> None:
    peer = client.open()
    peer.sync(2, room="tafel·ü")
    peer.send(placed_bytes(3, b"\x01\x02", room="tafel·ü"), placed_bytes(2**53 - 1, b"", room="tafel·ü"))
    assert client.messages(2) == [{"bytes": [1, 2]}, {"bytes": []}]
    assert client.events("message")[0][1]["room"] == "tafel·ü"
    assert client.position("tafel·ü") == {"epoch": EPOCH, "offset": 2**53 - 1}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(placed_bytes(1, b"x", room="elsewhere"), id="another room"),
        pytest.param(placed_bytes(1, b"x", epoch=OTHER_EPOCH), id="another epoch"),
        pytest.param(placed_bytes(2**53, b"x"), id="an offset that is no safe integer"),
        pytest.param(placed_bytes(1, b"x")[:20], id="less than a header"),
        pytest.param(placed_bytes(1, b"")[:24], id="less than the room"),
        pytest.param(b"HUB2" + placed_bytes(1, b"x")[4:], id="another magic"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_bytes_that_are_no_frame_of_a_known_room_arrive_whole(client: Client, data: bytes) -> None:
    peer = client.open()
    peer.sync(0)
    peer.send(data)
    assert client.messages(1) == [{"bytes": list(data)}]
    assert client.position() == {"epoch": EPOCH, "offset": 0}


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(placed(9, "x", room="elsewhere"), id="another room"),
        pytest.param(placed(9, "x", epoch=OTHER_EPOCH), id="another epoch"),
        pytest.param({"room": "lobby", "offset": 9, "data": 1}, id="no epoch"),
        pytest.param({"type": "sync"}, id="a sync without position"),
        pytest.param({"type": "sync", **placed(9)}, id="a sync that says not whether it recovered"),
        pytest.param({"type": "reset", **placed(9, room="elsewhere")}, id="a reset of another room"),
        pytest.param({"type": "dropped", "what": "the ball"}, id="an app's own dropped"),
        pytest.param({"type": "error", "text": "no"}, id="an app's own error"),
        pytest.param({"type": "pong"}, id="a pong to an app's own ping"),
        pytest.param({"type": "user_joined", "room": "lobby", "user_id": "1", "count": 1}, id="an announcement"),
    ],
)
def test_frames_that_are_not_for_the_client_are_messages(client: Client, frame: object) -> None:
    peer = client.open()
    peer.sync(0)
    peer.send(frame)
    assert client.messages(1) == [frame]
    assert client.position() == {"epoch": EPOCH, "offset": 0}


def test_a_position_without_data_moves_on_silently(client: Client) -> None:
    peer = client.open()
    peer.sync(0)
    peer.send(placed(1), placed(2, "next"))
    assert client.messages(1) == ["next"]
    assert client.position()["offset"] == 2


def test_what_was_seen_is_dropped(client: Client) -> None:
    peer = client.open()
    peer.sync(3)
    peer.send(placed(3, "old"), placed(4, "four"), placed(4, "again"), placed_bytes(4, b"again"), placed(5, "five"))
    client.read(peer)
    assert client.messages(2) == ["four", "five"]


def test_what_the_server_says_about_messages_are_events(client: Client) -> None:
    peer = client.open()
    peer.send({"type": "dropped", "room": "ticker", "count": 3})
    peer.send({"type": "error", "code": "invalid_json", "message": "not JSON"})
    assert client.events("dropped", 1) == [{"room": "ticker", "count": 3}]
    assert client.events("error", 1) == [{"code": "invalid_json", "message": "not JSON"}]
    assert client.messages(0) == []


# Coming back to where it was


def test_a_client_that_comes_back_presents_its_positions_and_gets_what_it_missed_once(client: Client) -> None:
    peer = client.open()
    assert peer.since is None
    peer.sync(10, id="first")
    peer.sync(0, room="board", epoch=OTHER_EPOCH, id="first")
    peer.send(placed(11, "eleven"))
    client.messages(1)
    assert client.run("client.connectionId") == "first"
    peer.cut()
    peer = client.server.accept()
    assert peer.since == {"ids": ["first"], "rooms": {"lobby": [EPOCH, 11], "board": [OTHER_EPOCH, 0]}}
    peer.sync(13, recovered=True, id="second")
    peer.send(placed(11, "eleven"), placed(12, "twelve"), placed(13), placed(14, "fourteen"))
    assert client.messages(3) == ["eleven", "twelve", "fourteen"]
    assert [meta["replayed"] for _, meta in client.events("message")] == [False, True, False]
    assert client.events("reset") == []
    assert client.events("sync")[-1] == {"room": "lobby", "recovered": True, "position": {"epoch": EPOCH, "offset": 13}}
    assert client.run("client.connectionId") == "second"


def test_nothing_missed_is_no_reset(client: Client) -> None:
    peer = client.open()
    peer.sync(5)
    client.events("sync", 1)
    for recovered in (True, False):
        peer.cut()
        peer = client.server.accept()
        peer.sync(5, recovered=recovered)
        client.read(peer)
    assert [sync["recovered"] for sync in client.events("sync")] == [False, True, False]
    assert client.events("reset") == []
    assert client.position() == {"epoch": EPOCH, "offset": 5}


@pytest.mark.parametrize(("epoch", "reason"), [(EPOCH, "too_old"), (OTHER_EPOCH, "lost")])
def test_what_can_not_be_recovered_is_a_reset(client: Client, epoch: str, reason: str) -> None:
    peer = client.open()
    peer.sync(5)
    client.events("sync", 1)
    peer.cut()
    peer = client.server.accept()
    peer.sync(90, epoch=epoch)
    peer.send(placed(91, "next", epoch=epoch))
    assert client.messages(1) == ["next"]
    assert client.events("reset") == [{"room": "lobby", "reason": reason}]
    assert client.position() == {"epoch": epoch, "offset": 91}


def test_a_long_replay_whose_end_is_gone_is_a_reset(client: Client) -> None:
    peer = client.open()
    peer.sync(5)
    client.events("sync", 1)
    peer.cut()
    peer = client.server.accept()
    peer.sync(1000, recovered=True)
    peer.send(placed(6, "six"))
    peer.sync(2000)
    peer.send(placed(2001, "next"))
    assert client.messages(2) == ["six", "next"]
    assert client.events("reset") == [{"room": "lobby", "reason": "too_old"}]


def test_a_history_lost_while_connected_is_a_reset(client: Client) -> None:
    peer = client.open()
    peer.sync(5)
    peer.send({"type": "reset", **placed(0, epoch=OTHER_EPOCH)}, placed(1, "next", epoch=OTHER_EPOCH))
    assert client.messages(1) == ["next"]
    assert client.events("reset") == [{"room": "lobby", "reason": "lost"}]
    assert client.position() == {"epoch": OTHER_EPOCH, "offset": 1}


def test_a_new_epoch_of_the_same_place_is_no_reset(client: Client) -> None:
    peer = client.open()
    peer.sync(5)
    peer.send({"type": "epoch", **placed(5, epoch=OTHER_EPOCH)}, placed(6, "next", epoch=OTHER_EPOCH))
    assert client.messages(1) == ["next"]
    assert client.events("reset") == []
    assert client.position() == {"epoch": OTHER_EPOCH, "offset": 6}


def test_a_replay_in_a_new_epoch_is_taken_from_where_the_client_was(client: Client) -> None:
    peer = client.open()
    peer.sync(5)
    client.events("sync", 1)
    peer.cut()
    peer = client.server.accept()
    peer.sync(6, recovered=True, epoch=OTHER_EPOCH)
    peer.send(
        {"type": "epoch", **placed(5, epoch=OTHER_EPOCH)},
        placed(6, "missed", epoch=OTHER_EPOCH),
        placed(7, "live", epoch=OTHER_EPOCH),
    )
    assert client.messages(2) == ["missed", "live"]
    assert [meta["replayed"] for _, meta in client.events("message")] == [True, False]
    assert client.events("reset") == []
    assert client.position() == {"epoch": OTHER_EPOCH, "offset": 7}


def test_a_replay_that_the_app_asked_for_is_taken_without_a_position(client: Client) -> None:
    peer = client.open()
    peer.sync(3, recovered=True)
    peer.send(placed(2, "two"), placed(3, "three"), placed(4, "four"))
    assert client.messages(3) == ["two", "three", "four"]
    assert [meta["replayed"] for _, meta in client.events("message")] == [True, True, False]


def test_ids_of_old_connections_are_kept_until_their_messages_are_behind(client: Client) -> None:
    peer = client.open()
    peer.sync(5, id="c0")
    client.events("sync", 1)
    for number in range(1, 10):  # never catches up with 9
        peer.cut()
        peer = client.server.accept()
        assert peer.since["ids"] == [f"c{each}" for each in reversed(range(number))][:8]
        peer.sync(9, recovered=True, id=f"c{number}")
        client.events("sync", number + 1)
    peer.send(placed(6), placed(9))
    client.until("client.positions.get('lobby').offset === 9")
    peer.cut()
    assert client.server.accept().since["ids"] == ["c9"]


def test_a_room_named_like_a_property_of_every_object_is_a_room(client: Client) -> None:
    peer = client.open()
    peer.sync(1, room="__proto__")
    client.events("sync", 1)
    peer.cut()
    assert client.server.accept().since["rooms"] == {"__proto__": [EPOCH, 1]}


def test_a_room_that_the_page_forgets_is_not_presented(client: Client) -> None:
    peer = client.open()
    peer.sync(1)
    peer.sync(1, room="left")
    client.events("sync", 2)
    client.run("() => { client.positions.delete('left'); }")
    peer.cut()
    assert client.server.accept().since["rooms"] == {"lobby": [EPOCH, 1]}


def test_more_rooms_than_a_request_line_takes_are_presented_as_far_as_they_fit(client: Client) -> None:
    peer = client.open()
    rooms = [f"room {number}" for number in range(500)]
    for room in rooms:
        peer.sync(1, room=room)
    peer.send(placed(2, "x", room="room 0"))
    client.messages(1)
    peer.cut()
    peer = client.server.accept()
    assert len(peer.url.query) < 6_000
    presented = list(peer.since["rooms"])
    assert presented == ["room 0", *reversed(rooms[-len(presented) + 1 :])]
    assert len(presented) > 50


# When to come back


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 1014])
def test_codes_after_which_it_comes_back(client: Client, code: int) -> None:
    client.open().close(code, "because")
    client.server.accept()
    wait = client.waits(1)[0]
    assert (wait["code"], wait["reason"], wait["attempt"]) == (code, "because", 1)


def test_it_comes_back_after_a_close_without_code_and_a_lost_connection(client: Client) -> None:
    client.open().close_without_code()
    client.server.accept().cut()
    client.server.accept()
    assert [wait["code"] for wait in client.waits(2)] == [1005, 1006]


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 4000, 4999])
def test_codes_after_which_it_stops(client: Client, code: int) -> None:
    client.open().close(code, "because")
    client.until("client.state === 'stopped'")
    state, detail = client.events("state")[-1]
    assert (state, detail["code"], detail["reason"], detail["delayMs"]) == ("stopped", code, "because", None)
    client.run("() => { dispatchEvent(new Event('offline')); dispatchEvent(new Event('online')); }")
    assert client.run("client.state") == "stopped"


def test_it_tells_the_page_each_state(client: Client) -> None:
    peer = client.open(minDelayMs=1)
    peer.close(1011)
    client.server.accept()
    client.until("client.state === 'open'")
    client.run("() => client.close(4001, 'done')")
    states = client.events("state")
    assert [state for state, _ in states] == ["connecting", "open", "waiting", "connecting", "open", "stopped"]
    assert [detail["attempt"] for _, detail in states] == [0, 0, 1, 1, 1, 1]
    assert states[-1][1] == {"attempt": 1, "code": 4001, "reason": "done", "delayMs": None, "retryAt": None}


def test_a_server_that_accepts_and_closes_at_once_is_not_hammered(client: Client) -> None:
    client.run("() => { Math.random = () => 0.5; }")
    client.start(minDelayMs=8, maxDelayMs=100)
    for _ in range(6):
        client.server.accept().close(1011)
    assert [wait["delayMs"] for wait in client.waits(6)] == [4, 8, 16, 32, 50, 50]


def test_delays_are_random_from_nothing_to_the_ceiling(client: Client) -> None:
    client.run("() => { const values = [0, 0.25, 0.999]; Math.random = () => values.shift() ?? 0; }")
    client.start(minDelayMs=20)
    for _ in range(3):
        client.server.accept().close(1011)
    assert [wait["delayMs"] for wait in client.waits(3)] == [0, 10, 80]


@pytest.mark.parametrize("code", [1012, 1013])
def test_a_server_that_sends_many_away_gets_them_back_over_a_longer_time(client: Client, code: int) -> None:
    client.run("() => { Math.random = () => 0.5; }")
    client.open(minDelayMs=10).close(code)
    assert client.waits(1)[0]["delayMs"] == 20


def test_a_refused_handshake_is_tried_again(timed: Client) -> None:
    timed.run("() => { Math.random = () => 0.5; }")
    timed.server.refusing = 503
    timed.start(minDelayMs=60_000, maxDelayMs=60_000)
    wait = timed.waits(1)[0]
    assert (wait["code"], wait["delayMs"]) == (1006, 30_000)
    timed.server.refusing = 0
    timed.page.clock.fast_forward(29_999)
    assert timed.run("client.state") == "waiting"
    timed.page.clock.fast_forward(1)
    timed.server.accept()


@pytest.mark.parametrize(("held_ms", "attempts"), [(4_999, [1, 2]), (5_000, [1, 1])])
def test_the_backoff_begins_anew_once_a_connection_has_held(timed: Client, held_ms: int, attempts: list[int]) -> None:
    timed.open().close(1011)
    timed.waits(1)
    timed.page.clock.fast_forward(1)
    peer = timed.server.accept()
    timed.until("client.state === 'open'")
    timed.page.clock.fast_forward(held_ms)
    peer.close(1011)
    assert [wait["attempt"] for wait in timed.waits(2)] == attempts


def test_connect_ends_a_wait(client: Client) -> None:
    client.run("() => { Math.random = () => 1; }")
    client.open(minDelayMs=600_000, maxDelayMs=600_000).close(1011)
    client.waits(1)
    client.run("() => client.connect()")
    client.server.accept()


# Address and token


def test_a_relative_address_is_the_pages_own(client: Client) -> None:
    client.run("() => start('/greet')")
    assert client.messages(1) == [{"path": "/greet"}]


def test_the_address_may_be_http_and_keeps_its_query(client: Client) -> None:
    url = client.server.url.replace("ws:", "http:") + "?a=1&a=%20#part"
    client.run("(url) => start(url, { minDelayMs: 1 })", url)
    peer = client.server.accept()
    assert peer.url.query == "a=1&a=%20"
    peer.sync(1)
    client.events("sync", 1)
    peer.cut()
    peer = client.server.accept()
    assert peer.url.query.startswith("a=1&a=%20&since=")
    assert peer.since["rooms"] == {"lobby": [EPOCH, 1]}


def test_an_address_function_is_called_for_every_attempt(client: Client) -> None:
    client.run("(url) => { let n = 0; start(async () => `${url}?n=${++n}`, { minDelayMs: 1 }); }", client.server.url)
    for n in ("1", "2", "3"):
        peer = client.server.accept()
        assert peer.query["n"] == [n]
        peer.close(1011)


def test_a_token_is_offered_as_subprotocol(client: Client) -> None:
    assert client.open(token="abc.DEF-1_2").offered == "bearer, abc.DEF-1_2"


def test_without_token_no_subprotocol_is_offered(client: Client) -> None:
    client.run("(url) => start(url, { token: () => null })", client.server.url)
    assert client.server.accept().offered is None


def test_a_token_function_is_called_for_every_attempt(client: Client) -> None:
    client.run(
        "(url) => { let n = 0; start(url, { token: async () => `t${++n}`, minDelayMs: 1 }); }", client.server.url
    )
    for n in (1, 2, 3):
        peer = client.server.accept()
        assert peer.offered == f"bearer, t{n}"
        peer.close(1008, "token expired")


def test_an_expired_token_that_can_not_be_renewed_stops(client: Client) -> None:
    client.open(token="abc").close(1008, "token expired")
    client.until("client.state === 'stopped'")


@pytest.mark.parametrize("failing", ["throw new Error('signed out')", "return Promise.reject(new Error('signed out'))"])
def test_a_token_function_that_fails_is_a_failed_attempt(client: Client, failing: str) -> None:
    client.run(
        f"""(url) => {{
            let n = 0;
            start(url, {{ token: () => {{ if (++n < 3) {failing}; return 't'; }}, minDelayMs: 1 }});
        }}""",
        client.server.url,
    )
    client.server.accept()
    waits = client.waits(2)
    assert [(wait["code"], wait["reason"], wait["attempt"]) for wait in waits] == [
        (None, "Error: signed out", 1),
        (None, "Error: signed out", 2),
    ]


# Servers that say nothing


def test_a_silent_server_is_found_out_and_replaced(client: Client) -> None:
    peer = client.open(pingIntervalMs=50)
    assert peer.receive() == '{"type":"ping"}'
    client.server.accept()
    assert client.waits(1)[0]["reason"] == "no sign of life"
    assert peer.gone.wait(DEADLINE_S)


def test_a_server_that_answers_is_kept_and_its_pongs_are_no_messages(timed: Client) -> None:
    peer = timed.open(pingIntervalMs=60_000)
    for answer in ({"type": "pong"}, b"anything", {"type": "pong"}):
        timed.page.clock.fast_forward(60_000)
        assert peer.receive() == '{"type":"ping"}'
        peer.send(answer)
        timed.read(peer)
    assert timed.run("client.state") == "open"
    assert timed.messages(1) == [{"bytes": list(b"anything")}]


def test_a_page_whose_timers_stood_still_asks_before_it_gives_up(timed: Client) -> None:
    peer = timed.open(pingIntervalMs=1_000)
    timed.page.clock.fast_forward(60_000)
    assert peer.receive() == '{"type":"ping"}'
    assert timed.run("client.state") == "open"


def test_a_socket_that_is_closing_is_sent_no_ping(client: Client) -> None:
    """A browser logs an error for that, and counts it among what is buffered."""
    client.run(
        """() => {
            const [WebSocket, setInterval] = [window.WebSocket, window.setInterval];
            window.WebSocket = class extends WebSocket { constructor(...args) { window.socket = super(...args); } };
            window.setInterval = (tick, ms) => setInterval(window.tick = tick, ms);
        }"""
    )
    client.open(pingIntervalMs=60_000)
    state, buffered = client.run("() => { socket.close(); tick(); return [socket.readyState, socket.bufferedAmount]; }")
    assert (state, buffered) == (2, 0)  # CLOSING


@pytest.mark.parametrize(("interval_ms", "patience_ms"), [(0, 20_000), (1_000, 2_000), (60_000, 20_000)])
def test_a_handshake_that_nobody_answers_is_given_up(timed: Client, interval_ms: int, patience_ms: int) -> None:
    with mute_server() as (url, listener):
        timed.run("([url, pingIntervalMs]) => start(url, { pingIntervalMs })", [url, interval_ms])
        dialled, _ = listener.accept()
        with dialled:
            timed.page.clock.fast_forward(patience_ms - 1)
            assert timed.run("client.state") == "connecting"
            timed.page.clock.fast_forward(1)
            assert timed.waits(1)[0]["reason"] == "no answer"
        timed.run("() => client.close()")


# The network and the page


def test_offline_closes_and_online_comes_back(client: Client) -> None:
    client.open().sync(5)
    client.events("sync", 1)
    try:
        client.page.context.set_offline(True)
        wait = client.waits(1)[0]
        assert client.run("client.send('lost')") is False
    finally:
        client.page.context.set_offline(False)
    assert (wait["reason"], wait["code"], wait["delayMs"], wait["retryAt"]) == ("offline", None, None, None)
    assert client.server.accept().since == {"ids": ["c1"], "rooms": {"lobby": [EPOCH, 5]}}


def test_online_ends_a_wait(client: Client) -> None:
    client.run("() => { Math.random = () => 1; }")
    client.open(minDelayMs=600_000, maxDelayMs=600_000).close(1011)
    client.waits(1)
    client.run("() => dispatchEvent(new Event('online'))")
    client.server.accept()


def test_a_page_that_goes_into_the_cache_closes_and_comes_back_with_it(client: Client) -> None:
    peer = client.open()
    client.run("() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: false }))")
    assert client.run("client.state") == "open"
    client.run("() => dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    assert client.waits(1)[0]["reason"] == "page hidden"
    assert peer.gone.wait(DEADLINE_S)
    client.run("() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    client.server.accept()


# The page's own hand


def test_close_tells_the_server_why(client: Client) -> None:
    peer = client.open()
    client.run("() => client.close(4001, 'bye')")
    assert client.run("client.state") == "stopped"
    assert peer.gone.wait(DEADLINE_S)
    assert (peer.connection.close_code, peer.connection.close_reason) == (4001, "bye")


def test_nothing_arrives_after_close(client: Client) -> None:
    client.start()
    client.run("() => client.on('message', () => client.close())")
    with suppress(ConnectionClosed):  # the page may be quicker
        client.server.accept().send("one", "two", "three")
    client.until("client.state === 'stopped'")
    assert client.messages(1) == ["one"]


def test_close_while_the_token_is_on_its_way_opens_no_socket(client: Client) -> None:
    client.run(
        """(url) => {
            const later = new Promise((resolve) => { window.give = resolve; });
            start(url, { token: () => { window.asked = true; return later; } });
        }""",
        client.server.url,
    )
    client.until("window.asked")
    client.run("async () => { client.close(); give('t'); await new Promise((done) => setTimeout(done)); }")
    assert [state for state, _ in client.events("state")] == ["connecting", "stopped"]
    assert client.server.idle


def test_close_during_the_handshake_gives_it_up(client: Client) -> None:
    with mute_server() as (url, listener):
        client.run("(url) => start(url)", url)
        dialled, _ = listener.accept()
        dialled.settimeout(DEADLINE_S)
        client.run("() => client.close()")
        with dialled:
            while dialled.recv(4096):
                pass
    assert [state for state, _ in client.events("state")] == ["connecting", "stopped"]


def test_close_before_it_began_connects_never(client: Client) -> None:
    client.run("async (url) => { start(url); client.close(); await 0; }", client.server.url)
    assert client.run("client.state") == "stopped"
    assert client.server.idle


def test_close_ends_a_wait(timed: Client) -> None:
    timed.open(minDelayMs=60_000).close(1011)
    timed.waits(1)
    timed.run("() => client.close()")
    timed.page.clock.fast_forward(120_000)
    assert timed.run("client.state") == "stopped"
    assert timed.server.idle


def test_connect_after_close_goes_on_where_it_was(client: Client) -> None:
    client.open().sync(5)
    client.events("sync", 1)
    client.run("() => client.close()")
    assert client.run("client.connectionId") is None
    client.run("() => client.connect()")
    assert client.server.accept().since["rooms"] == {"lobby": [EPOCH, 5]}


def test_it_can_wait_to_be_told_to_connect(client: Client) -> None:
    client.start(connect=False)
    assert client.run("async () => { await 0; return client.state; }") == "stopped"
    assert client.events("state") == []
    client.run("() => client.connect()")
    client.server.accept()


def test_a_code_that_a_page_may_not_use_throws_and_changes_nothing(client: Client) -> None:
    client.open()
    with pytest.raises(Error, match="InvalidAccessError"):
        client.run("() => client.close(1001)")
    assert client.run("client.state") == "open"
    assert client.run("client.send('still here')") is True


def test_a_handler_that_throws_is_reported_and_harms_no_other(client: Client, console: Console) -> None:
    console.expect("of the handler's own")
    client.start(connect=False)
    client.run(
        """() => {
            for (const event of ['state', 'sync', 'message']) {
                client.on(event, () => { throw new Error("of the handler's own"); });
            }
            client.on('message', (data) => { window.heard = data; });
            client.connect();
        }"""
    )
    peer = client.server.accept()
    peer.sync(0)
    peer.send(placed(1, "hi"))
    client.until("window.heard === 'hi'")
    assert client.position()["offset"] == 1
    assert sum("of the handler's own" in text for text in console.complaints) == 4


def test_a_handler_that_was_taken_away_hears_no_more(client: Client) -> None:
    peer = client.open()
    client.run(
        "() => { window.heard = []; window.off = client.on('message', (data) => { heard.push(data); off(); }); }"
    )
    peer.send("one", "two")
    client.messages(2)
    assert client.run("heard") == ["one"]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("new HubbubClient('ftp://example.com')", "no address of a WebSocket"),
        ("new HubbubClient('http://')", "Invalid URL"),
        ("new HubbubClient('/ws', { minDelayMs: 0 })", "minDelayMs is 0"),
        ("new HubbubClient('/ws', { maxDelayMs: 2 ** 31 })", "maxDelayMs is 2147483648"),
        ("new HubbubClient('/ws', { pingIntervalMs: '1s' })", "pingIntervalMs is 1s"),
        ("new HubbubClient('/ws', { connect: false }).on('mesage', () => {})", 'no event "mesage"'),
        ("new HubbubClient('/ws', { connect: false }).on('message')", "no function"),
    ],
)
def test_wrong_arguments_throw(client: Client, script: str, problem: str) -> None:
    with pytest.raises(Error, match=re.escape(problem)):
        client.run(f"() => {{ {script}; }}")


# The app that serves it


def test_the_types_declare_what_the_module_has(client: Client, site: str) -> None:
    types = client.page.request.get(f"{site}/hubbub/hubbub.d.ts").text()
    declared = set(
        re.findall(r"^  (?:readonly )?(\w+)[(:<]", types.split("export class HubbubClient")[1], re.MULTILINE)
    )
    client.start(connect=False)
    actual = client.run("() => [...Object.getOwnPropertyNames(HubbubClient.prototype), ...Object.keys(client)]")
    assert declared == set(actual)
