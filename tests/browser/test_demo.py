"""The demo in real browsers: people with several tabs, networks that fail, a server that is restarted."""

from __future__ import annotations

import json
import math
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError

import pytest
from playwright.sync_api import Browser, Page, expect

from hubbub.demo.board import is_piece
from hubbub.demo.users import kept_key
from tests.browser.conftest import Console, NewContext
from tests.browser.demo_support import (
    DemoServer,
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

pytestmark = pytest.mark.browser

PAGES = ("/", "/chat", "/posts", "/dashboard", "/board")
OFFLINE = "Offline. Trying again…"
NOTHING_MISSED = "Reconnected: nothing was missed"
RECOVERED = "Reconnected: you have received what you missed"
DRAWN_AGAIN = "Reconnected: the drawing was loaded again"
RESET = "Reconnected: the server was restarted and its history was reset"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
BLACK, RED, BLUE = "31 36 48", "217 45 58", "37 99 235"


@pytest.fixture(scope="module")
def server(browser: Browser) -> Iterator[DemoServer]:
    with demo_server() as server:
        yield server


@pytest.fixture
def ann(server: DemoServer, new_context: NewContext) -> Person:
    return Person(new_context, server.url, "Ann")


@pytest.fixture
def bob(server: DemoServer, new_context: NewContext) -> Person:
    return Person(new_context, server.url, "Bob")


# Signing in


def test_one_signs_in_with_a_name_and_comes_to_where_one_wanted(
    server: DemoServer, page: Page, console: Console
) -> None:
    console.expect("status of 422")
    page.goto(f"{server.url}/board")
    expect(status(page)).to_have_text("Not signed in")
    page.get_by_role("button", name="Sign in").click()  # without a name: the browser says that it is required
    page.get_by_label("What should the others call you?").fill("  ")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#problem")).to_have_text("a name is 1 to 32 printable characters")
    page.get_by_label("What should the others call you?").fill("Ann  Lee")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/board")
    expect(status(page)).to_have_text("Connected")
    page.get_by_label("You", exact=True).click()
    expect(page.locator("#my-name")).to_have_text("Ann Lee")


@pytest.mark.parametrize("name", ["", " ", "x" * 33, "a\nb\0", "evil\u202ename", "\ud800", 7, None])
def test_a_name_that_is_none_is_refused(server: DemoServer, name: object) -> None:
    with pytest.raises(HTTPError) as refused:
        sign_in(server.url, name)
    assert refused.value.code == 422
    assert isinstance(json.load(refused.value)["detail"], str)
    refused.value.close()


def test_signing_out_reaches_every_tab(ann: Person) -> None:
    other, page = ann.open("/dashboard"), ann.open("/chat")
    page.get_by_label("You", exact=True).click()
    page.get_by_role("button", name="Sign out").click()
    expect(status(page)).to_have_text("Not signed in")
    expect(status(other)).to_have_text("Signed out: you signed out")
    other.get_by_role("button", name="Sign in").click()
    other.wait_for_url("**/?next=%2Fdashboard")


def test_a_token_of_somebody_else_is_refused_in_words(server: DemoServer, ann: Person) -> None:
    page = ann.context.new_page()
    header, claims, _ = ann.token.split(".")
    forged = f"{header}.{claims}.{'A' * 43}"
    page.add_init_script(f"localStorage.setItem('hubbub-demo-token', '{forged}')")
    page.goto(f"{server.url}/dashboard")
    expect(status(page)).to_have_text("Signed out: the server does not know this sign-in")


def test_the_key_outlives_the_process_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    key = kept_key(tmp_path / "hubbub")
    assert len(key) >= 32
    assert kept_key(tmp_path / "hubbub") == key
    (file,) = (tmp_path / "hubbub").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


# Chat


def test_two_people_with_two_tabs_each_chat(ann: Person, bob: Person) -> None:
    room = "/chat?room=two-by-two"
    anns, bobs = [ann.open(room), ann.open(room)], [bob.open(room), bob.open(room)]
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


def test_others_see_who_is_typing(ann: Person, bob: Person) -> None:
    room = "/chat?room=typing"
    writing, other, reading = ann.open(room), ann.open(room), bob.open(room)
    writing.locator("#text").press_sequentially("hm")
    expect(reading.locator("#typing")).to_have_text("Ann is typing…")
    for page in (writing, other):
        expect(page.locator("#typing")).to_have_text("")
    say(writing, "hm")
    expect(reading.locator("#typing")).to_have_text("")


def test_who_comes_late_reads_what_was_said(ann: Person, bob: Person) -> None:
    room = "/chat?room=late"
    page = ann.open(room)
    with ann.voice("late") as voice:
        for number in range(60):
            voice.say(f"number {number}")
        expect(page.locator(".message")).to_have_count(60)
    late = bob.open(room)
    expect(late.locator(".message")).to_have_count(50)
    say(late, "what did I miss?")
    say(page, "nothing")
    expect(late.locator(".message")).to_have_count(52)
    assert texts(late) == [*(f"number {number}" for number in range(10, 60)), "what did I miss?", "nothing"]


def test_the_room_hears_of_the_last_tab_that_leaves(ann: Person, bob: Person) -> None:
    room = "/chat?room=leaving"
    page, first, last = ann.open(room), bob.open(room), bob.open(room)
    first.close()
    last.reload()
    expect(status(last)).to_have_text("Connected")
    expect(page.locator("#people li").last).to_have_text(re.compile("Bob"))
    last.close()
    expect(page.locator(".note")).to_have_text(["Bob joined", "Bob left"], timeout=10_000)
    expect(page.locator("#people li")).to_have_count(1)
    expect(page.locator("#how-many")).to_have_text("1")


def test_names_and_messages_are_never_markup(server: DemoServer, new_context: NewContext, ann: Person) -> None:
    markup = '<img src=x onerror="alert(1)">'
    mallory, page = Person(new_context, server.url, markup), ann.open("/chat?room=markup")
    say(mallory.open("/chat?room=markup"), f"{markup}<script>alert(2)</script>")
    expect(page.locator(".message .name")).to_have_text(markup)
    expect(page.locator(".message .text")).to_have_text(f"{markup}<script>alert(2)</script>")
    expect(page.locator("#people .name")).to_have_text(["Ann", markup])
    assert page.locator("main img, main script").count() == 0


def test_a_room_that_can_not_be_is_refused_in_words(ann: Person) -> None:
    page = ann.context.new_page()
    page.goto(f"{ann.url}/chat?room=No%20Room")
    expect(status(page)).to_have_text("Disconnected: a room's name is 1 to 32 of a-z, 0-9 and -")


def test_messages_that_make_no_sense_are_answered_and_harm_nobody(ann: Person, bob: Person) -> None:
    page = bob.open("/chat?room=nonsense")
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
    anns = [ann.open("/posts"), ann.open("/dashboard")]
    anns[0].bring_to_front()
    anns[0].get_by_label("Say something to everybody").fill("My first post")
    anns[0].get_by_role("button", name="Post").click()
    expect(anns[0].locator(".post")).to_have_count(1)
    bobs = [bob.open("/posts"), bob.open("/posts")]

    like = bobs[1].get_by_role("button", name="Like")
    like.click()
    for page in anns:
        expect(page.locator(".toast")).to_have_text("Bob liked your post “My first post”")
    expect(like).to_have_attribute("aria-pressed", "true")
    for page in anns:
        expect(page.locator("#unread")).to_have_text("1")
    for page in (*bobs, anns[0]):
        expect(page.locator(".like .count")).to_have_text("1")

    like.click()
    expect(like).to_have_attribute("aria-pressed", "false")
    expect(anns[0].locator(".like .count")).to_have_text("0")
    like.click()
    for page in anns:
        expect(page.locator("#unread")).to_have_text("2")

    anns[1].bring_to_front()
    anns[1].get_by_label("Notifications, 2 unread").click()
    expect(anns[1].locator("#notifications li")).to_have_count(2)
    for page in anns:
        expect(page.locator("#unread")).to_be_hidden()
    anns[0].bring_to_front()
    anns[0].get_by_role("button", name="Like").click()  # one's own
    expect(anns[0].locator(".like .count")).to_have_text("2")
    for page in (*anns, *bobs):
        expect(page.locator("#unread")).to_be_hidden()
    later = ann.open("/board", anns[1])
    later.get_by_label("Notifications").click()
    expect(later.locator("#notifications li")).to_have_count(2)


# The dashboard


def test_the_dashboard_shows_the_last_minute_and_moves(ann: Person, bob: Person) -> None:
    pages = [bob.open("/dashboard"), ann.open("/dashboard")]
    for page in pages:
        page.bring_to_front()
        connections = page.locator(".graph").filter(has_text="Connections").locator(".value")
        expect(connections).to_have_text("2")
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


def test_strokes_reach_the_others_and_who_comes_late(ann: Person, bob: Person) -> None:
    anns, bobs = [ann.open("/board"), ann.open("/board")], [bob.open("/board"), bob.open("/board")]
    bobs[0].bring_to_front()
    bobs[0].get_by_label("Red").check()
    draw(bobs[0], (0.1, 0.2), (0.3, 0.2), (0.5, 0.2))
    draw(bobs[0], (0.9, 0.9))  # a dot
    anns[1].bring_to_front()
    anns[1].get_by_label("Blue").check()
    anns[1].get_by_label("Width of the line").fill("40")
    draw(anns[1], (0.2, 0.5), (0.2, 0.8))
    late = bob.open("/board")
    for page in (*anns, *bobs, late):
        for point in ((0.2, 0.2), (0.45, 0.2), (0.9, 0.9)):
            await_colour(page, point, RED)
        await_colour(page, (0.21, 0.6), BLUE)
        await_colour(page, (0.7, 0.5), "nothing")
        expect(page.locator("#people li")).to_have_count(2)

    late.get_by_role("button", name="Clear").click()
    late.get_by_role("button", name="For all?").click()
    for page in (*anns, *bobs, late):  # first of all: toasts go after a while
        expect(page.locator(".toast")).to_have_text("Bob cleared the board")
    for page in (*anns, *bobs, late):
        await_colour(page, (0.2, 0.2), "nothing")
    draw(late, (0.5, 0.5), (0.6, 0.5))
    later = ann.open("/board")
    await_colour(later, (0.55, 0.5), BLACK)
    await_colour(later, (0.2, 0.2), "nothing")
    expect(later.locator(".toast")).to_have_count(0)


def test_one_draws_with_a_finger(server: DemoServer, new_context: NewContext, ann: Person) -> None:
    phone = Person(new_context, server.url, "Fay", has_touch=True, viewport={"width": 390, "height": 800})
    page, other = phone.open("/board"), ann.open("/board")
    page.bring_to_front()
    page.get_by_label("Red").check()
    box = page.locator("#board").bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + 0.3 * box["height"])
    await_colour(other, (0.8, 0.3), RED)
    await_colour(page, (0.8, 0.3), RED)


# What goes wrong


def test_a_cut_network_loses_and_repeats_nothing(server: DemoServer, new_context: NewContext, bob: Person) -> None:
    with network(server.port) as cable:
        ann = Person(new_context, cable.url, "Ann")
        board, page = ann.open("/board"), ann.open("/chat?room=cable")
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
                draw(bobs_board := bob.open("/board"), (0.3, 0.3), (0.5, 0.3))
                bobs_board.close()
                page.bring_to_front()
                while len(said) < missed:
                    assert writer.is_alive()
                    stop.wait(0.01)
                cable.restore()
                most = missed + 100  # it goes on while the page comes back
                try_now(page)
                expect(status(page)).to_have_text(RECOVERED)
        finally:
            stop.set()
            writer.join()
        expect(page.locator(".message")).to_have_count(len(said))
        assert texts(page) == said
        say(page, "I am back")
        try_now(board)
        expect(status(board)).to_have_text(DRAWN_AGAIN)
        await_colour(board, (0.4, 0.3), BLACK)


def test_a_message_into_a_dead_cable_is_marked_and_can_be_sent_again(
    server: DemoServer, new_context: NewContext, bob: Person
) -> None:
    other = bob.open("/chat?room=dead")
    with network(server.port) as cable:
        page = Person(new_context, cable.url, "Ann").open("/chat?room=dead")
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
        for each in (page, other):
            expect(each.locator(".message:not(.pending) .text")).to_have_text("are you there?")
        expect(page.locator(".pending")).to_have_count(0)


def test_notifications_come_after_a_cut(server: DemoServer, new_context: NewContext, bob: Person) -> None:
    with network(server.port) as cable:
        ann = Person(new_context, cable.url, "Ann")
        page = ann.open("/posts")
        page.get_by_label("Say something to everybody").fill("Cut me off")
        page.get_by_role("button", name="Post").click()
        bobs = bob.open("/posts")
        mine = bobs.locator(".post").filter(has_text="Cut me off")
        expect(mine).to_be_visible()
        cable.cut()
        expect(status(page)).to_have_text(OFFLINE)
        mine.get_by_role("button", name="Like").click()
        expect(mine.locator(".count")).to_have_text("1")
        cable.restore()
        try_now(page)
        expect(page.locator("#unread")).to_have_text("1")
        expect(page.locator(".toast")).to_have_text("Bob liked your post “Cut me off”")
        expect(page.locator(".post").filter(has_text="Cut me off").locator(".count")).to_have_text("1")


def test_after_a_restart_the_pages_say_that_the_history_was_reset_and_go_on(new_context: NewContext) -> None:
    with demo_server() as server:
        ann, bob = (Person(new_context, server.url, name) for name in ("Ann", "Bob"))
        home, dashboard, posts, board, chat = (
            ann.open(path) for path in ("/", "/dashboard", "/posts", "/board", "/chat")
        )
        others, others_board = bob.open("/chat"), bob.open("/board")
        say(chat, "before")
        draw(board, (0.2, 0.2), (0.4, 0.2))
        await_colour(others_board, (0.3, 0.2), BLACK)
        posts.get_by_label("Say something to everybody").fill("before")
        posts.get_by_role("button", name="Post").click()
        expect(posts.locator(".post")).to_have_count(1)

        server.stop()
        for page in (home, dashboard, posts, board, chat, others, others_board):
            expect(status(page)).to_have_text(OFFLINE)
        server.start()

        # Whoever is back first may write before the others are.
        with bob.voice("lobby") as voice:
            voice.say("after")
            for page in (home, dashboard, posts, others):
                try_now(page)
                expect(status(page)).to_have_text(RESET)
            for page in (board, others_board):
                try_now(page)
                expect(status(page)).to_have_text(DRAWN_AGAIN)
            expect(status(chat)).to_have_text(RESET, timeout=15_000)  # by itself
        expect(posts.locator("#nothing")).to_be_visible()
        await_colour(others_board, (0.3, 0.2), "nothing")
        draw(board, (0.6, 0.6), (0.8, 0.6))
        await_colour(others_board, (0.7, 0.6), BLACK)
        say(chat, "going on")
        say(others, "so am I")
        for page in (chat, others):
            expect(page.locator(".text")).to_have_text(["before", "after", "going on", "so am I"])
            expect(page.get_by_text("The server was restarted, and forgot what was said before")).to_have_count(1)
        dashboard.bring_to_front()
        expect(dashboard.locator(".graph .value").first).to_have_text("7")


# How it looks


def test_every_page_fits_a_phone_in_both_colour_schemes(
    server: DemoServer, new_context: NewContext, bob: Person
) -> None:
    size = {"width": 360, "height": 740}
    long_name = "Wolfeschlegelsteinhausenbergerdo"
    ann = Person(new_context, server.url, long_name, color_scheme="light", viewport=size, has_touch=True)
    room = "/chat?room=phone"
    say(bob.open(room), "W" * 200)
    page = ann.context.new_page()
    page.add_init_script(
        """window.shifted = 0;
        new PerformanceObserver((list) => {
            for (const { hadRecentInput, value } of list.getEntries()) if (!hadRecentInput) shifted += value;
        }).observe({ type: "layout-shift", buffered: true });"""
    )
    for path in (*PAGES, room):
        page.emulate_media(color_scheme="light")
        ann.open(path, page)
        if path == room:
            expect(page.locator(".message")).to_have_count(1)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert scheme_of(page) == scheme, path
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
            assert page.evaluate("shifted") < 0.01, path


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_may_choose_the_other_colour_scheme(
    server: DemoServer, new_context: NewContext, scheme: Literal["light", "dark"]
) -> None:
    page = Person(new_context, server.url, "Ann", color_scheme=scheme).open("/board")
    assert scheme_of(page) == scheme
    page.get_by_role("button", name="Light or dark").click()
    other = scheme_of(page)
    assert other != scheme
    page.reload()
    assert scheme_of(page) == other


def scheme_of(page: Page) -> str:
    """Whether a page is light or dark."""
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return "light" if sum(map(int, re.findall(r"\d+", colour)[:3])) > 384 else "dark"


def test_nothing_comes_from_elsewhere(server: DemoServer, ann: Person) -> None:
    page = ann.context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in PAGES:
        ann.open(path, page)
        response = page.request.get(server.url + path)
        assert response.headers["content-security-policy"].startswith("default-src 'self';")
        assert response.headers["x-content-type-options"] == "nosniff"
    assert asked
    assert all(url.startswith(server.url) for url in asked)
