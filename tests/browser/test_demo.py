"""The demo in real browsers: people with several tabs, networks that fail, a server that is restarted.

Ann and Bob stay for all tests, with tabs that go from page to page. A new tab costs twice as much.
"""

from __future__ import annotations

import json
import math
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize, expect

from hubbub.demo.board import is_piece
from hubbub.demo.users import kept_key
from tests.browser.conftest import DEADLINE_MS, Console, NewContext
from tests.browser.demo_support import (
    DemoServer,
    Guest,
    Network,
    Person,
    await_colour,
    demo_server,
    draw,
    network,
    say,
    sign_in,
    status,
    texts,
    try_now,
)
from tests.integration.sdk_js import JS, require_packages

pytestmark = pytest.mark.browser

OFFLINE = "Offline. Trying again…"
NOTHING_MISSED = "Reconnected: nothing was missed"
RECOVERED = "Reconnected: you have received what you missed"
DRAWN_AGAIN = "Reconnected: the drawing was loaded again"
RESET = "Reconnected: the server was restarted and its history was reset"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
BLACK, RED, BLUE = "31 36 48", "217 45 58", "37 99 235"
BLACK_PIECE = bytes.fromhex("01 06 1f2430 4ccc 4ccc 8000 4ccc")
"""A line from (0.3, 0.3) to (0.5, 0.3)."""


@pytest.fixture(scope="module")
def server(browser: Browser) -> Iterator[DemoServer]:
    with demo_server() as server:
        yield server


@pytest.fixture(scope="module")
def anns_cable(server: DemoServer) -> Iterator[Network]:
    with network(server.port) as cable:
        yield cable


@pytest.fixture(scope="module")
def both(browser: Browser, server: DemoServer, anns_cable: Network) -> Iterator[tuple[Person, Person]]:
    """Ann and Bob."""
    with ExitStack() as stack:

        def new_context(**options: Any) -> BrowserContext:
            context = browser.new_context(**options)
            stack.callback(context.close)
            context.set_default_timeout(DEADLINE_MS)
            return context

        yield Person(new_context, anns_cable.url, "Ann"), Person(new_context, server.url, "Bob")


@pytest.fixture
def cable(anns_cable: Network) -> Iterator[Network]:
    """The cable between Ann and the server."""
    yield anns_cable
    anns_cable.restore()


@pytest.fixture
def ann(both: tuple[Person, Person], console: Console) -> Iterator[Person]:
    with console.watch(both[0].context):
        yield both[0]


@pytest.fixture
def bob(both: tuple[Person, Person], console: Console) -> Iterator[Person]:
    with console.watch(both[1].context):
        yield both[1]


# Signing in


def test_one_signs_in_with_a_name_and_does_all_but_draw_with_the_keyboard(
    server: DemoServer, page: Page, console: Console
) -> None:
    console.expect("status of 422")
    keys = page.keyboard
    page.goto(f"{server.url}/board")
    expect(status(page)).to_have_text("Not signed in")
    expect(page.get_by_label("What should the others call you?")).to_be_focused()
    keys.press("Enter")  # without a name: the browser says that it is required
    keys.type("  ")
    keys.press("Enter")
    expect(page.locator("#problem")).to_have_text("a name is 1 to 32 printable characters")
    keys.type("Ann  Lee")
    keys.press("Enter")
    page.wait_for_url("**/board")  # where one wanted to go
    expect(status(page)).to_have_text("Connected")

    _tab_to(page.locator("#me summary"))
    keys.press("Enter")
    expect(page.locator("#my-name")).to_have_text("Ann Lee")
    keys.press("Escape")
    expect(page.locator("#my-name")).to_be_hidden()
    expect(page.locator("#me summary")).to_be_focused()
    _tab_to(page.get_by_label("Black"))
    keys.press("ArrowRight")
    expect(page.get_by_label("Red")).to_be_checked()

    page.reload()
    _tab_to(page.get_by_role("link", name="Posts"))
    keys.press("Enter")
    page.wait_for_url("**/posts")
    expect(status(page)).to_have_text("Connected")
    _tab_to(page.get_by_label("Say something to everybody"))
    keys.type("By keyboard")
    keys.press("Tab")
    keys.press("Enter")
    post = page.locator(".post").filter(has_text="By keyboard")
    _tab_to(post.get_by_role("button", name="Like"))
    keys.press("Space")
    expect(post.get_by_role("button", name="Like")).to_have_attribute("aria-pressed", "true")

    page.reload()
    _tab_to(page.get_by_role("link", name="Chat"))
    keys.press("Enter")
    page.wait_for_url("**/chat")
    _tab_to(page.get_by_role("link", name="random"))
    keys.press("Enter")
    page.wait_for_url("**/chat?room=random")
    expect(status(page)).to_have_text("Connected")
    _tab_to(page.get_by_label("Your message"))
    keys.type("By keyboard")
    keys.press("Shift+Enter")
    keys.type("in two lines")
    keys.press("Enter")
    expect(page.locator(".message:not(.pending) .text")).to_have_text("By keyboard\nin two lines", use_inner_text=True)


def _tab_to(target: Locator) -> None:
    """Presses Tab until an element has the focus."""
    expect(target).to_be_visible()
    for _ in range(30):
        if target.evaluate("(element) => element === document.activeElement"):
            return
        target.page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {target}")


@pytest.mark.parametrize("name", ["", " ", "x" * 33, "a\nb\0", "evil\u202ename", "\ud800", 7, None])
def test_a_name_that_is_none_is_refused(server: DemoServer, name: object) -> None:
    with pytest.raises(HTTPError) as refused:
        sign_in(server.url, name)
    assert refused.value.code == 422
    assert isinstance(json.load(refused.value)["detail"], str)
    refused.value.close()


def test_signing_out_reaches_every_tab_and_a_token_of_somebody_else_is_refused_in_words(
    server: DemoServer, new_context: NewContext
) -> None:
    cat = Person(new_context, server.url, "Cat")
    chat, posts, page = cat.tabs("/chat", "/posts", "/dashboard")
    page.get_by_label("You", exact=True).click()
    page.get_by_role("button", name="Sign out").click()
    expect(status(page)).to_have_text("Not signed in")
    for other in (chat, posts):
        expect(status(other)).to_have_text("Signed out: you signed out")
        expect(other.locator("#composer")).to_be_hidden()
    posts.get_by_role("button", name="Sign in").click()
    posts.wait_for_url("**/?next=%2Fposts")

    chat.close()
    page.close()
    header, claims, _ = cat.token.split(".")
    forged = f"{header}.{claims}.{'A' * 43}"
    for path in ("/dashboard", "/board"):
        posts.evaluate(f"localStorage.setItem('hubbub-demo-token', '{forged}')")
        posts.goto(server.url + path)
        expect(status(posts)).to_have_text("Signed out: the server does not know this sign-in")
    expect(posts.locator("#tools")).to_be_hidden()


def test_signing_out_reaches_a_page_that_is_offline(server: DemoServer, ann: Person, cable: Network) -> None:
    chat, board = ann.tabs("/chat?room=out", "/board")
    cable.cut()
    for page in (chat, board):
        expect(status(page)).to_have_text(OFFLINE)
    chat.evaluate("localStorage.removeItem('hubbub-demo-token')")  # what signing out does in the end
    expect(status(board)).to_have_text("Signed out: you signed out")
    expect(board.locator("#tools")).to_be_hidden()
    cable.restore()
    try_now(board)
    chat.evaluate("(token) => localStorage.setItem('hubbub-demo-token', token)", ann.token)  # signs in again
    expect(status(board)).to_have_text("Connected")  # the page was loaded again


def test_the_key_outlives_the_process_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    key = kept_key(tmp_path / "hubbub")
    assert len(key) >= 32
    assert kept_key(tmp_path / "hubbub") == key
    (file,) = (tmp_path / "hubbub").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


# Chat


def test_two_people_with_two_tabs_each_chat_type_and_leave(ann: Person, bob: Person) -> None:
    room = "/chat?room=two-by-two"
    anns, bobs = ann.tabs(room, room), bob.tabs(room, room)
    for page in anns:
        expect(page.locator("#people li")).to_have_text([re.compile("Ann.*you"), re.compile("Bob$")])
        expect(page.locator(".note")).to_have_text("Bob joined")
    for page in bobs:
        expect(page.locator("#people li")).to_have_text([re.compile("Ann$"), re.compile("Bob.*you")])
        expect(page.locator(".note")).to_have_count(0)
    said = ["Hello", "Hi Ann", "<b>not bold</b> & whole", "two\nlines"]
    for page, text in zip((anns[0], bobs[1], anns[1], bobs[0]), said, strict=True):
        say(page, text)
        for each in (*anns, *bobs):
            expect(each.locator(".text").last).to_have_text(text, use_inner_text=True)
    for page in (*anns, *bobs):
        assert texts(page) == said
        assert page.locator(".pending").count() == 0

    writing, other = anns
    for page in bobs:
        while page.locator("#typing").text_content() != "Ann is typing…":  # which is shown for a while
            writing.locator("#text").press_sequentially("hm")
    for page in (writing, other):
        expect(page.locator("#typing")).to_have_text("")
    say(writing, "hm")
    for page in bobs:
        expect(page.locator("#typing")).to_have_text("")

    first, last = bobs
    first.close()
    last.reload()
    expect(status(last)).to_have_text("Connected")
    for page in anns:
        expect(page.locator("#people li").last).to_have_text(re.compile("Bob"))
    last.close()
    for page in anns:
        expect(page.locator(".note")).to_have_text(["Bob joined", "Bob left"], timeout=10_000)
        expect(page.locator("#people li")).to_have_count(1)
        expect(page.locator("#how-many")).to_have_text("1")


def test_who_comes_late_reads_what_was_said(ann: Person, bob: Person) -> None:
    room = "/chat?room=late"
    (page,) = ann.tabs(room)
    with ann.voice("late") as voice:
        for number in range(60):
            voice.say(f"number {number}")
        expect(page.locator(".message")).to_have_count(60)
    (late,) = bob.tabs(room)
    expect(late.locator(".message")).to_have_count(50)
    say(late, "what did I miss?")
    say(page, "nothing")
    expect(late.locator(".message")).to_have_count(52)
    assert texts(late) == [*(f"number {number}" for number in range(10, 60)), "what did I miss?", "nothing"]


def test_names_and_messages_are_never_markup(server: DemoServer, ann: Person) -> None:
    markup = '<img src=x onerror="alert(1)">'
    (page,) = ann.tabs("/chat?room=markup")
    with Guest(server.url, markup).voice("markup") as mallory:
        mallory.say(f"{markup}<script>alert(2)</script>")
        expect(page.locator(".message .name")).to_have_text(markup)
        expect(page.locator(".message .text")).to_have_text(f"{markup}<script>alert(2)</script>")
        expect(page.locator("#people .name")).to_have_text(["Ann", markup])
        assert page.locator("main img, main script").count() == 0


def test_a_room_that_can_not_be_is_refused_in_words(ann: Person) -> None:
    (page,) = ann.tabs("/")
    page.goto(f"{ann.url}/chat?room=No%20Room")
    expect(status(page)).to_have_text("Disconnected: a room's name is 1 to 32 of a-z, 0-9 and -")


def test_messages_that_make_no_sense_are_answered_and_harm_nobody(ann: Person, bob: Person) -> None:
    (page,) = bob.tabs("/chat?room=nonsense")
    with ann.voice("nonsense") as voice:
        nonsense: list[Any] = [[], None, {}, {"text": " "}, {"text": 5}, {"text": "x" * 2001}, "hm"]
        for data in nonsense:
            assert voice.ask(publish={"channel": voice.room, "data": data})["error"]["code"] == 422, data
        assert voice.ask(rpc={"method": "sing"})["error"]["code"] == 104
        for elsewhere in ("chat:other", "typing:nonsense", "posts"):  # it is subscribed to none of these
            reply = voice.ask(publish={"channel": elsewhere, "data": {"text": "hm"}})
            assert reply["error"]["code"] == 103, elsewhere
        voice.say("still here")
        expect(page.locator(".text")).to_have_text("still here")
    with ann.connect("/ws/board") as board:
        point = b"\x80\x00\x80\x00"
        too_long = b"\x01\x04\0\0\0" + 257 * point
        for piece in (
            b"", b"\x01\x04", b"\x02\x04\0\0\0" + point, b"\x01\x00\0\0\0" + point, too_long, "{}", "nonsense"
        ):  # fmt: skip
            board.send(piece)
            while not (isinstance(frame := board.recv(timeout=30), str) and '"type":"error"' in frame):
                pass
            assert json.loads(frame)["code"] == "invalid_message"
    assert is_piece(b"\x01\x04\0\0\0" + 256 * point)
    assert not is_piece(too_long)


# Posts


def test_a_like_reaches_the_author_in_every_tab(ann: Person, bob: Person) -> None:
    anns = ann.tabs("/posts", "/dashboard")
    anns[0].bring_to_front()
    anns[0].get_by_label("Say something to everybody").fill("My first post")
    anns[0].get_by_role("button", name="Post").click()
    expect(post_of(anns[0], "My first post")).to_have_count(1)
    bobs = bob.tabs("/posts", "/posts")

    like = post_of(bobs[1], "My first post").get_by_role("button", name="Like")
    like.click()
    for page in anns:
        expect(page.locator(".toast")).to_have_text("Bob liked your post “My first post”")
    expect(like).to_have_attribute("aria-pressed", "true")
    for page in anns:
        expect(page.locator("#unread")).to_have_text("1")
    for page in (*bobs, anns[0]):
        expect(post_of(page, "My first post").locator(".count")).to_have_text("1")

    like.click()
    expect(like).to_have_attribute("aria-pressed", "false")
    expect(post_of(anns[0], "My first post").locator(".count")).to_have_text("0")
    like.click()  # again, and Ann is not told again
    expect(post_of(anns[0], "My first post").locator(".count")).to_have_text("1")

    anns[1].bring_to_front()
    anns[1].get_by_label("Notifications, 1 unread").click()
    expect(anns[1].locator("#notifications li")).to_have_count(1)
    for page in anns:
        expect(page.locator("#unread")).to_be_hidden()
    anns[0].bring_to_front()
    post_of(anns[0], "My first post").get_by_role("button", name="Like").click()  # one's own
    expect(post_of(anns[0], "My first post").locator(".count")).to_have_text("2")
    for page in (*anns, *bobs):
        expect(page.locator("#unread")).to_be_hidden()
    later = ann.open("/board", anns[1])
    later.get_by_label("Notifications").click()
    expect(later.locator("#notifications li")).to_have_count(1)


def post_of(page: Page, text: str) -> Locator:
    """The post of a text."""
    return page.locator(".post").filter(has_text=text)


# The dashboard


def test_the_dashboard_shows_the_last_minute_and_moves(ann: Person, bob: Person) -> None:
    for page in (*bob.tabs("/dashboard"), *ann.tabs("/dashboard")):
        page.bring_to_front()
        graph = page.locator(".graph").filter(has_text="Connections")
        connections = graph.locator(".value")
        expect(connections).to_have_text("2")
        expect(graph.locator(".scale span")).to_have_text([re.compile(r"^\d+$"), re.compile(r"^\d+$"), "0"])
        expect(graph.locator(".ages")).to_have_text("1 min agonow")
        expect(
            graph.get_by_role("img", name=re.compile(r"^Connections over the last minute: from \d+ to \d+$"))
        ).to_be_visible()
        expect(page.locator(".graph")).to_have_count(6)
        expect(page.locator("#counts dd").last).to_have_text("100")
        page.evaluate(
            """() => {
                const graph = document.querySelectorAll("canvas")[1];
                const before = graph.toDataURL();
                window.moved = () => graph.toDataURL() !== before;
            }"""
        )
        with ann.voice("busy") as voice:
            for number in range(20):
                voice.say(str(number))
            page.wait_for_function("moved()")
            expect(connections).to_have_text("3")
        expect(connections).to_have_text("2")


# The whiteboard


def test_strokes_reach_the_others_and_who_comes_late_with_a_finger(
    server: DemoServer, new_context: NewContext, ann: Person, bob: Person
) -> None:
    anns, bobs = ann.tabs("/board", "/board"), bob.tabs("/board", "/board")
    bobs[0].bring_to_front()
    bobs[0].get_by_label("Red").check()
    draw(bobs[0], (0.1, 0.2), (0.3, 0.2), (0.5, 0.2))
    draw(bobs[0], (0.9, 0.9))  # a dot
    anns[1].bring_to_front()
    anns[1].get_by_label("Blue").check()
    anns[1].get_by_label("Width of the line").fill("40")
    draw(anns[1], (0.2, 0.5), (0.2, 0.8))
    phone = Person(new_context, server.url, "Fay", has_touch=True, viewport={"width": 390, "height": 800})
    late = phone.open("/board")
    for page in (*anns, *bobs, late):
        for point in ((0.2, 0.2), (0.45, 0.2), (0.9, 0.9)):
            await_colour(page, point, RED)
        await_colour(page, (0.21, 0.6), BLUE)
        await_colour(page, (0.7, 0.5), "nothing")
        expect(page.locator("#people li")).to_have_count(3)

    late.get_by_role("button", name="Clear").click()
    late.get_by_role("button", name="For all?").click()
    for page in (*anns, *bobs, late):  # first of all: toasts go after a while
        expect(page.locator(".toast")).to_have_text("Fay cleared the board")
    for page in (*anns, *bobs, late):
        await_colour(page, (0.2, 0.2), "nothing")
    draw(bobs[1], (0.5, 0.5), (0.6, 0.5))
    later = ann.open("/board", anns[0])
    await_colour(later, (0.55, 0.5), BLACK)
    await_colour(later, (0.2, 0.2), "nothing")
    expect(later.locator(".toast")).to_have_count(0)

    late.bring_to_front()
    late.get_by_label("Red").check()
    box = late.locator("#board").bounding_box()
    assert box is not None
    late.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + 0.3 * box["height"])
    await_colour(later, (0.8, 0.3), RED)
    await_colour(late, (0.8, 0.3), RED)


# What goes wrong


def test_a_cut_network_loses_and_repeats_nothing(ann: Person, bob: Person, cable: Network) -> None:
    board, page = ann.tabs("/board", "/chat?room=cable")
    bob.tabs()
    stop, said, most = threading.Event(), list[str](), math.inf

    def write() -> None:
        with bob.voice("cable") as voice:
            while not stop.wait(0.01):
                if len(said) >= most:  # else a slow page would miss more than is kept
                    continue
                said.append(f"number {len(said)}")
                voice.say(said[-1])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2):
            seen = page.locator(".message").count()
            most = math.inf
            expect(page.locator(".message").nth(seen + 4)).to_be_visible()
            cable.cut()
            most = missed = len(said) + 70  # more than a newcomer is sent
            expect(status(page)).to_have_text(OFFLINE)
            page.locator("#text").fill("not lost")
            page.locator("#text").press("Enter")
            expect(page.locator("#text")).to_have_value("not lost")  # where it was written, as it can't be sent
            expect(page.locator("#problem")).to_have_text("Not sent: you are offline. Your message stays here.")
            page.locator("#text").fill("")
            with bob.connect("/ws/board") as socket:
                socket.send(BLACK_PIECE)
            while len(said) < missed:
                assert writer.is_alive()
                stop.wait(0.01)
            cable.restore()
            most = missed + 100  # it goes on while the page comes back
            try_now(page)
            expect(status(page)).to_have_text(RECOVERED)
            expect(page.locator("#problem")).to_be_empty()
    finally:
        stop.set()
        writer.join()
    expect(page.locator(".message")).to_have_count(len(said))
    assert texts(page) == said
    say(page, "I am back")
    try_now(board)
    expect(status(board)).to_have_text(DRAWN_AGAIN)
    await_colour(board, (0.4, 0.3), BLACK)


def test_nothing_is_drawn_while_the_board_is_offline(ann: Person, cable: Network) -> None:
    (board,) = ann.tabs("/board")
    cable.cut()
    expect(status(board)).to_have_text(OFFLINE)
    expect(board.get_by_text("Not connected. You can draw again")).to_be_visible()
    expect(board.get_by_role("button", name="Clear")).to_be_disabled()
    draw(board, (0.1, 0.95), (0.3, 0.95))
    await_colour(board, (0.2, 0.95), "nothing")
    cable.restore()
    board.locator("#status-action").dispatch_event("click")  # "Try now", unless it is back already
    expect(status(board)).to_have_text(DRAWN_AGAIN)
    expect(board.get_by_text("Not connected. You can draw again")).to_be_hidden()
    draw(board, (0.1, 0.95), (0.3, 0.95))
    await_colour(board, (0.2, 0.95), BLACK)


def test_a_message_into_a_dead_cable_is_marked_and_can_be_sent_again(ann: Person, bob: Person, cable: Network) -> None:
    (page,) = ann.tabs("/chat?room=dead")
    with bob.voice("dead") as other:
        cable.hold()
        page.locator("#text").fill("are you there?")
        page.locator("#text").press("Enter")
        expect(page.locator(".pending")).to_have_text(re.compile("are you there"))
        cable.cut()
        again = page.get_by_role("button", name="Not confirmed. Send again?")
        expect(again).to_be_visible()
        cable.restore()
        try_now(page)
        expect(status(page)).to_have_text(NOTHING_MISSED)
        again.click()
        expect(page.locator(".message:not(.pending) .text")).to_have_text("are you there?")
        assert other.hear() == "are you there?"
        expect(page.locator(".pending")).to_have_count(0)


def test_notifications_come_after_a_cut(ann: Person, bob: Person, cable: Network) -> None:
    (page,), (bobs,) = ann.tabs("/posts"), bob.tabs("/posts")
    page.get_by_label("Say something to everybody").fill("Cut me off")
    page.get_by_role("button", name="Post").click()
    mine = post_of(bobs, "Cut me off")
    expect(mine).to_be_visible()
    cable.cut()
    expect(status(page)).to_have_text(OFFLINE)
    mine.get_by_role("button", name="Like").click()
    expect(mine.locator(".count")).to_have_text("1")
    cable.restore()
    try_now(page)
    expect(page.locator("#unread")).to_have_text("1")
    expect(page.locator(".toast")).to_have_text("Bob liked your post “Cut me off”")
    expect(post_of(page, "Cut me off").locator(".count")).to_have_text("1")


def test_after_a_restart_the_pages_say_that_the_history_was_reset_and_go_on(
    server: DemoServer, ann: Person, bob: Person
) -> None:
    home, posts, chat = ann.tabs("/", "/posts", "/chat")
    dashboard, board, others = bob.tabs("/dashboard", "/board", "/chat")
    say(chat, "before")
    draw(board, (0.2, 0.2), (0.4, 0.2))
    await_colour(board, (0.3, 0.2), BLACK)
    posts.get_by_label("Say something to everybody").fill("before")
    posts.get_by_role("button", name="Post").click()
    expect(post_of(posts, "before")).to_have_count(1)

    server.stop()
    for page in (home, posts, chat, dashboard, board, others):
        expect(status(page)).to_have_text(OFFLINE)
    server.start()

    # Whoever is back first may write before the others are.
    with bob.voice("lobby") as voice, bob.connect("/ws/board") as others_board:
        voice.say("after")
        for page in (home, posts, dashboard, others):
            try_now(page)
            expect(status(page)).to_have_text(RESET)
        try_now(board)
        expect(status(board)).to_have_text(DRAWN_AGAIN)
        expect(status(chat)).to_have_text(RESET, timeout=15_000)  # by itself
        expect(posts.locator("#nothing")).to_be_visible()
        await_colour(board, (0.3, 0.2), "nothing")
        draw(board, (0.6, 0.6), (0.8, 0.6))
        while not isinstance(frame := others_board.recv(timeout=30), bytes):
            pass
        assert is_piece(frame)
    say(chat, "going on")
    say(others, "so am I")
    for page in (chat, others):
        expect(page.locator(".text")).to_have_text(["before", "after", "going on", "so am I"])
        expect(page.get_by_text("The server was restarted, and forgot what was said before")).to_have_count(1)
    dashboard.bring_to_front()
    expect(dashboard.locator(".graph .value").first).to_have_text("6")


# How it looks


def test_every_page_fits_a_phone_is_accessible_in_both_colour_schemes_and_loads_nothing_from_elsewhere(
    server: DemoServer, new_context: NewContext, bob: Person
) -> None:
    require_packages("axe-core")
    size: ViewportSize = {"width": 360, "height": 740}
    long_name = "Wolfeschlegelsteinhausenbergerdo"
    ann = Person(new_context, server.url, long_name, color_scheme="light", viewport=size, has_touch=True)
    with bob.voice("phone") as voice:
        voice.say("W" * 200)
    page = ann.context.new_page()
    page.add_init_script(
        """window.shifted = 0;
        new PerformanceObserver((list) => {
            for (const { hadRecentInput, value } of list.getEntries()) if (!hadRecentInput) shifted += value;
        }).observe({ type: "layout-shift", buffered: true });"""
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in ("/", "/chat?room=phone", "/posts", "/dashboard", "/board"):
        page.emulate_media(color_scheme="light")
        ann.open(path, page)
        if path.startswith("/chat"):
            expect(page.locator(".message")).to_have_count(1)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert scheme_of(page) == scheme, path
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
            assert page.evaluate("shifted") < 0.01, path
            assert serious_findings(page, *(() if scheme == "light" else ["color-contrast"])) == [], (path, scheme)
        assert_no_toast_covers_what_one_writes_with(page)
        page.set_viewport_size({"width": 1100, "height": 740})
        assert_no_toast_covers_what_one_writes_with(page)
        page.set_viewport_size(size)
        response = page.request.get(server.url + path)
        assert response.headers["content-security-policy"].startswith("default-src 'self';")
        assert response.headers["x-content-type-options"] == "nosniff"
    assert asked
    assert all(url.startswith(server.url) for url in asked)


def serious_findings(page: Page, *rules: str) -> list[str]:
    """What axe finds of a serious or a critical impact, by all rules unless some are named."""
    if not page.evaluate("'axe' in window"):
        page.evaluate((JS / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8"))
    found: list[str] = page.evaluate(
        """async (rules) => (await axe.run(rules.length > 0 ? { runOnly: rules } : {})).violations
            .filter(({ impact }) => impact === "serious" || impact === "critical")
            .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(", ")}`)""",
        list(rules),
    )
    return found


def assert_no_toast_covers_what_one_writes_with(page: Page) -> None:
    page.evaluate("import('/static/ui.js').then(({ toast }) => toast('Bob liked your post “hello”', '/posts'))")
    toast = page.locator(".toast").last.bounding_box()
    assert toast is not None
    for each in page.locator("#composer, #tools, #sign-in").all():
        box = each.bounding_box()
        if box is None:
            continue  # not shown
        apart = toast["y"] >= box["y"] + box["height"] or toast["y"] + toast["height"] <= box["y"]
        beside = toast["x"] >= box["x"] + box["width"] or toast["x"] + toast["width"] <= box["x"]
        assert apart or beside, (page.url, toast, box)
    page.evaluate("document.getElementById('toasts').replaceChildren()")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_may_choose_the_other_colour_scheme(bob: Person, scheme: Literal["light", "dark"]) -> None:
    (page,) = bob.tabs("/")
    page.emulate_media(color_scheme=scheme)
    assert scheme_of(page) == scheme
    page.get_by_role("button", name="Light or dark").click()
    other = scheme_of(page)
    assert other != scheme
    page.reload()
    assert scheme_of(page) == other
    page.evaluate("localStorage.removeItem('theme')")


def scheme_of(page: Page) -> str:
    """Whether a page is light or dark."""
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return "light" if sum(map(int, re.findall(r"\d+", colour)[:3])) > 384 else "dark"
