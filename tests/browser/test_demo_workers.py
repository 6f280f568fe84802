"""The demo on four workers that share a Redis: nobody notices which worker they are on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import NewContext
from tests.browser.demo_support import (
    DemoServer,
    Person,
    await_colour,
    demo_server,
    draw,
    network,
    say,
    status,
    texts,
    try_now,
)
from tests.integration.redis_server import running_redis

# Four workers and a browser begin with the first test, and take 15 s of a core, of which a busy machine gives a part.
pytestmark = pytest.mark.browser

WORKERS = 4
OFFLINE = "Offline. Trying again…"


@pytest.fixture(scope="module")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as redis, pytest.MonkeyPatch.context() as environment:
        environment.setenv("HUBBUB_DEMO_DATABASE", str(tmp_path_factory.mktemp("demo") / "demo.sqlite"))
        options = ("--workers", str(WORKERS), "--broker", redis.url())
        with demo_server(*options, workers=WORKERS) as server:
            yield server


@pytest.fixture
def ann(server: DemoServer, new_context: NewContext) -> Person:
    return Person(new_context, server.url, "Ann")


@pytest.fixture
def bob(server: DemoServer, new_context: NewContext) -> Person:
    return Person(new_context, server.url, "Bob")


def test_what_one_says_reaches_every_worker(ann: Person, bob: Person) -> None:
    """Sixteen sockets beside the pages: with four workers hardly one is without."""
    room = "spread"
    with ExitStack() as sockets:
        listening = [sockets.enter_context(bob.voice(room)) for _ in range(16)]
        pages = [ann.open(f"/chat?room={room}"), ann.open(f"/chat?room={room}"), bob.open(f"/chat?room={room}")]
        for number, page in enumerate(pages):
            say(page, f"message {number}")
        for page in pages:
            expect(page.locator(".text")).to_have_text([f"message {number}" for number in range(len(pages))])
            expect(page.locator("#people li")).to_have_count(2)
        for voice in listening:
            heard = [voice.hear() for _ in pages]
            assert heard == [f"message {number}" for number in range(len(pages))]


def test_who_comes_back_to_another_worker_missed_nothing(
    server: DemoServer, new_context: NewContext, bob: Person
) -> None:
    with network(server.port) as cable:
        ann = Person(new_context, cable.url, "Ann")
        page, other = ann.open("/chat?room=cut"), bob.open("/chat?room=cut")
        say(page, "before")
        for number in range(3):  # each time it may be another one
            cable.cut()
            expect(page.locator("#status-text")).not_to_have_text("Connected")
            say(other, f"meanwhile {number}")
            cable.restore()
            try_now(page)
            expect(page.locator("#status-text")).to_have_text("Reconnected: you have received what you missed")
            expect(page.locator(".text").last).to_have_text(f"meanwhile {number}")
        assert texts(page) == ["before", *(f"meanwhile {number}" for number in range(3))]


def test_the_board_is_one_and_the_dashboard_tells_of_a_worker(ann: Person, bob: Person) -> None:
    board, other = ann.open("/board"), bob.open("/board")
    draw(board, (0.2, 0.5), (0.4, 0.5))
    for page in (board, other):
        await_colour(page, (0.3, 0.5), "31 36 48")
    ann.open("/dashboard")


@pytest.mark.timeout(400)  # a core that other suites share needs minutes for eight pages and two starts of four workers
@pytest.mark.parametrize(
    "fault", [pytest.param("the network is cut", marks=pytest.mark.slow), "all workers are restarted"]
)
def test_every_page_comes_back_and_nothing_is_lost(
    fault: str, server: DemoServer, new_context: NewContext, bob: Person
) -> None:
    """Two people with two tabs each at everything. Redis and the database keep what a restarted process forgets."""
    room = f"/chat?room={len(fault)}"
    with network(server.port) as cable:
        ann = Person(new_context, cable.url, "Ann")
        pages = [ann.open(path) for path in (room, room, "/board", "/posts", "/dashboard")]
        chats, board, posts, dashboard = pages[:2], pages[2], pages[3], pages[-1]
        say(chats[0], "before")
        draw(board, (0.2, 0.8), (0.4, 0.8))
        posts.get_by_label("Say something to everybody").fill(fault)
        posts.get_by_role("button", name="Post").click()
        post = posts.locator(".post").filter(has_text=fault)
        expect(post).to_have_count(1)

        cable.cut()
        if fault == "all workers are restarted":
            server.stop()
        for page in pages:
            expect(status(page)).to_have_text(OFFLINE)
        if fault == "all workers are restarted":
            server.start()
        with bob.voice(room.removeprefix("/chat?room=")) as voice:
            voice.say("meanwhile")
        cable.restore()
        for page in pages:
            try_now(page)

        for page in chats:
            expect(status(page)).to_have_text("Reconnected: you have received what you missed")
            expect(page.locator(".text")).to_have_text(["before", "meanwhile"])
        expect(status(board)).to_have_text("Reconnected: the drawing was loaded again")
        await_colour(board, (0.3, 0.8), "31 36 48")
        others = [bob.open(path) for path in (room, "/board", "/posts")]
        say(chats[1], "going on")
        for page in (*chats, others[0]):
            expect(page.locator(".text")).to_have_text(["before", "meanwhile", "going on"])
            expect(page.locator("#people li")).to_have_count(2)
        draw(board, (0.6, 0.8), (0.8, 0.8))
        for x in (0.3, 0.7):
            await_colour(others[1], (x, 0.8), "31 36 48")
        others[2].locator(".post").filter(has_text=fault).get_by_role("button", name="Like").click()
        expect(post.locator(".count")).to_have_text("1")
        for page in pages[3:]:
            expect(page.locator("#unread")).not_to_be_empty()  # the like is told on whichever page she looks at
        dashboard.bring_to_front()
        expect(dashboard.locator(".graph .value").first).to_have_text(re.compile(r"[1-9]"))
