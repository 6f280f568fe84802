"""The page of an endpoint: its rooms and methods, and the console, in a real browser and under its own security policy.

The app is mounted in another one, and serves no ``hubbub.js`` of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect
from websockets.sync.client import ClientConnection, connect

import hubbub
from tests.browser.conftest import DEADLINE_MS, Console
from tests.browser.docs_app import MARKUP, TOKEN, Gate, manager, root
from tests.integration.sdk_js import JS, NODE, require_packages
from tests.integration.support import LiveServer, serving

pytestmark = pytest.mark.browser

DEADLINE_S = 30
VIEWPORT: ViewportSize = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with serving(root, log_level="warning") as server:
        yield server


@pytest.fixture(scope="module")
def shared(browser: Browser) -> Iterator[tuple[Page, Console]]:
    """One tab for all tests: a new one takes longer than most of them."""
    console = Console()
    with browser.new_context(viewport=VIEWPORT) as context, console.watch(context):
        context.set_default_timeout(DEADLINE_MS)
        page = context.new_page()
        page.on("dialog", lambda dialog: pytest.fail(f"markup has run: {dialog.message}"))
        yield page, console


@pytest.fixture
def console(shared: tuple[Page, Console]) -> Iterator[Console]:
    """What the page complains about, its security policy included."""
    _, console = shared
    yield console
    assert console.unexpected == []


@pytest.fixture
def page(server: LiveServer, shared: tuple[Page, Console], console: Console) -> Page:
    page, _ = shared
    page.goto("about:blank")  # else a fragment might be all that changes
    return opened(page, server)


def opened(page: Page, server: LiveServer, path: str = "/shop/live/docs") -> Page:
    page.goto(f"http://127.0.0.1:{server.port}{path}")
    expect(page.locator("#connection")).to_be_visible()
    return page


def state(page: Page) -> Locator:
    return page.locator("#state")


def sign_in(page: Page, token: str = TOKEN) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Connect", exact=True).click()


def item(page: Page, name: str) -> Locator:
    """A room or a method, opened."""
    found = page.locator(".item").filter(has=page.locator("h3").get_by_text(name, exact=True))
    if not found.evaluate("(each) => each.open"):
        found.locator("summary").first.click()
    return found


def rows(page: Page, kind: str) -> Locator:
    return page.locator(f"#log > li[data-kind={kind}]:not([hidden])")


def subscribed(page: Page, room: str = "lobby") -> Locator:
    """Subscribes to a room of the chat, and returns what the page shows of it."""
    chat = item(page, "chat:{room}")
    chat.get_by_label("room", exact=True).fill(room)
    chat.get_by_role("button", name="Subscribe", exact=True).click()
    card = chat.get_by_role("region", name=f"Subscription to chat:{room}")
    expect(card.locator(".state")).to_contain_text("subscribed")
    return card


class Bob:
    """Another client, in a room."""

    def __init__(self, socket: ClientConnection, room: str) -> None:
        self._socket = socket
        self._room = room
        self._count = 0
        self._ask(connect={"token": TOKEN})
        self._ask(subscribe={"channel": room})

    @classmethod
    @contextmanager
    def within(cls, server: LiveServer, room: str) -> Iterator[Bob]:
        with connect(server.ws("/shop/live?name=bob"), compression=None) as socket:
            yield cls(socket, room)

    def publish(self, text: str) -> None:
        self._ask(publish={"channel": self._room, "data": {"text": text}})

    def _ask(self, **command: Any) -> None:
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, **command}))
        while True:
            for line in str(self._socket.recv(DEADLINE_S)).splitlines():
                reply = json.loads(line)
                if reply.get("id") == self._count:
                    assert "error" not in reply, reply
                    return


def broadcast(room: str, topics: Iterable[str]) -> None:
    """Publishes from a thread of the app. That of the test has a loop, which is Playwright's."""

    def run() -> None:
        for topic in topics:
            manager.from_thread.broadcast({"topic": topic}, room=room)

    with ThreadPoolExecutor(1) as executor:
        executor.submit(run).result(DEADLINE_S)


def test_a_token_or_a_session_signs_in_and_a_wrong_token_is_told(server: LiveServer, page: Page) -> None:
    sign_in(page, "wrong")
    expect(state(page)).to_have_text("Refused: no such token (3500)")
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Query of the address").fill("name=anna")
    data = page.get_by_role("group", name="Data of the connection")
    data.get_by_role("checkbox").check()
    data.get_by_label("language").select_option("de")
    sign_in(page)
    expect(state(page)).to_have_text("Connected")
    expect(rows(page, "connection").last).to_contain_text('{"text":"Hallo, anna"}')
    expect(rows(page, "room")).to_contain_text(["$user", "$everyone", "news"])

    # What comes without a subscription
    notify = item(page, "notify")
    notify.get_by_role("button", name="Call").click()
    expect(notify.get_by_role("status")).to_contain_text("Without data.")
    expect(rows(page, "message")).to_contain_text(['{"alone":true}'])
    expect(rows(page, "publication")).to_contain_text(['{"all":true}'])

    page.get_by_role("button", name="Disconnect").click()
    expect(state(page)).to_have_text("Not connected")
    notify.get_by_role("button", name="Call").click()
    expect(notify.get_by_role("status")).to_have_text("Connect first.")
    expect(page.get_by_role("button", name="Connect", exact=True)).to_be_focused()
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]

    # A session of the site needs no token
    page.context.add_cookies([{"name": "session", "value": "carl", "url": f"http://127.0.0.1:{server.port}"}])
    sign_in(page, "")
    expect(rows(page, "connection").last).to_contain_text("Hallo, carl")
    page.context.clear_cookies()


def test_a_room_is_watched_published_into_and_asked(server: LiveServer, page: Page) -> None:
    chat = item(page, "chat:{room}")
    chat.get_by_role("button", name="Subscribe", exact=True).click()
    expect(chat.get_by_role("alert").first).to_have_text("room: enter a value")
    chat.get_by_label("room", exact=True).fill("staff")
    chat.get_by_role("button", name="Subscribe", exact=True).click()
    staff = chat.get_by_role("region", name="Subscription to chat:staff")
    expect(staff.locator(".state")).to_have_text("waits until you connect")
    sign_in(page)
    expect(staff.locator(".state")).to_have_text("refused: permission denied (103)")
    expect(rows(page, "error").last).to_contain_text("refused: permission denied (103)")
    expect(staff.get_by_role("button")).to_have_text(["Subscribe", "Remove"])
    staff.evaluate("(each) => each.dataset.isFirst = ''")
    submit = chat.get_by_role("button", name="Subscribe", exact=True).first
    submit.click()  # another try
    expect(staff.locator(".state")).to_have_text("refused: permission denied (103)")
    expect(staff).to_have_count(1)
    expect(staff).not_to_have_attribute("data-is-first", "")
    staff.get_by_role("button", name="Remove").click()
    expect(staff).to_have_count(0)
    expect(submit).to_be_focused()

    card = subscribed(page)
    expect(rows(page, "room").last).to_contain_text(MARKUP)  # as text
    with Bob.within(server, "chat:lobby") as bob:
        expect(rows(page, "join").last).to_contain_text("bob")
        bob.publish(MARKUP)
        expect(rows(page, "publication").last).to_contain_text("from bob")
        expect(rows(page, "publication").last).to_contain_text(MARKUP)
        rows(page, "publication").last.locator("summary").click()
        expect(rows(page, "publication").last.locator("pre")).to_contain_text(f'"text": "{MARKUP}"')

        answer = card.get_by_role("status").last
        card.get_by_label("text").fill("")
        card.get_by_role("button", name="Publish").click()
        expect(answer).to_contain_text("Error 422")
        expect(answer).to_contain_text("text: String should have at least 1 character")
        card.get_by_label("text").fill("Good morning")
        card.get_by_role("button", name="Publish").click()
        expect(answer).to_contain_text("Published")
        expect(answer).to_contain_text(" ms")
        expect(rows(page, "publication").last).to_contain_text("Good morning")

        card.get_by_role("button", name="Presence", exact=True).click()
        expect(answer.locator("tbody tr")).to_contain_text(["ann", "bob"])
        card.get_by_role("button", name="Presence stats").click()
        expect(answer.locator("tbody td")).to_have_text(["2", "2"])
        card.get_by_label("At most how many").fill("1")
        card.get_by_role("button", name="History").click()
        expect(answer.locator("tbody tr")).to_contain_text(["Good morning"])
    expect(rows(page, "leave").last).to_contain_text("bob")

    card.get_by_role("button", name="Unsubscribe").click()
    expect(card.locator(".state")).to_have_text("unsubscribed")
    card.get_by_role("button", name="Subscribe", exact=True).click()
    expect(card.locator(".state")).to_contain_text("recovered")

    ticker = item(page, "ticker:{number}")
    ticker.get_by_role("button", name="Subscribe", exact=True).click()
    expect(ticker.get_by_role("alert").first).to_have_text("number: enter a number")
    for number, problem in (("0", "enter at least 1"), ("1.5", "enter a whole number")):
        ticker.get_by_label("number", exact=True).fill(number)
        ticker.get_by_role("button", name="Subscribe", exact=True).click()
        expect(ticker.get_by_role("alert").first).to_have_text(f"number: {problem}")
    ticker.get_by_label("number", exact=True).fill("1e21")
    ticker.get_by_role("button", name="Subscribe", exact=True).click()
    unknown = ticker.get_by_role("region", name="Subscription to ticker:1e+21")
    expect(unknown.locator(".state")).to_have_text("refused: unknown channel (102)")
    expect(unknown.locator(".hint")).to_have_text("No room has this name: number may not fit its type or limits.")
    unknown.get_by_role("button", name="Remove").click()
    ticker.get_by_label("number", exact=True).fill("7")
    ticker.get_by_role("checkbox").check()
    ticker.get_by_label("price").fill("-1")
    ticker.get_by_role("button", name="Subscribe", exact=True).click()
    expect(ticker.get_by_text("refused: permission denied (103)")).to_be_visible()
    logs = item(page, "logs:*")
    logs.get_by_label("room").fill("logs:today")
    logs.get_by_role("button", name="Subscribe", exact=True).click()
    expect(logs.get_by_role("region", name="Subscription to logs:today").locator(".state")).to_have_text("subscribed")


def test_a_line_that_is_cut_shows_what_recovery_does(server: LiveServer, page: Page) -> None:
    sign_in(page)
    card = subscribed(page, "tunnel")
    with Bob.within(server, "chat:tunnel") as bob:
        page.get_by_role("button", name="Cut the line").click()
        expect(state(page)).to_have_text("The line is cut. Restore it to reconnect.")
        for text in ("one", "two", "three"):
            bob.publish(text)
    page.get_by_role("button", name="Restore the line").click()
    expect(state(page)).to_contain_text("Reconnected: 1 room recovered with 3 missed messages")
    expect(card.locator(".state")).to_have_text("recovered, 3 messages")
    expect(page.locator("#changed")).to_be_hidden()
    expect(rows(page, "publication")).to_contain_text([f'"text":"{text}"' for text in ("one", "two", "three")])
    expect(rows(page, "publication").get_by_text("recovered", exact=True)).to_have_count(3)

    page.get_by_role("button", name="Cut the line").click()
    broadcast("chat:tunnel", map(str, range(101)))
    page.get_by_role("button", name="Restore the line").click()
    expect(card.locator(".state")).to_have_text("not recovered: more was missed than the server keeps")
    expect(state(page)).to_contain_text("not recovered")

    # As after a restart of the server, with another version of the app
    page.get_by_role("button", name="Cut the line").click()
    page.evaluate(
        """() => {
            window.WebSocket = class extends WebSocket {
                set onmessage(handle) {
                    super.onmessage = ({ data }) => handle?.({ data: data.replaceAll('"epoch":"', '"epoch":"new-') });
                }
                send(text) {
                    super.send(text.replaceAll('"epoch":"', '"epoch":"old-'));
                }
            };
        }"""
    )
    page.route("**/asyncapi.json", lambda route: route.fulfill(json={"asyncapi": "3.0.0"}), times=1)
    page.get_by_role("button", name="Restore the line").click()
    began = "not recovered: the server's history began anew, as after a restart"
    expect(card.locator(".state")).to_have_text(began)
    expect(page.get_by_text("The app has changed: reload this page.")).to_be_visible()


def test_a_form_makes_a_message_of_every_type(page: Page) -> None:
    sign_in(page)
    create = item(page, "orders.create")
    message = create.get_by_role("group", name="Message", exact=True)
    call, answer = create.get_by_role("button", name="Call"), create.get_by_role("status").last
    message.get_by_label("name", exact=True).fill("Table")
    message.get_by_label("count", exact=True).fill("2")
    message.get_by_label("parts", exact=True).check()
    message.get_by_role("button", name="Add item to parts").click()
    leg = message.get_by_label("name", exact=True).nth(1)
    expect(leg).to_be_focused()
    leg.fill("Leg")
    message.get_by_role("button", name="Add item to items").click()
    message.get_by_role("button", name="Remove").last.click()
    message.get_by_label("size").select_option("large")
    message.get_by_label("address", exact=True).check()
    message.get_by_label("street").fill("Main Street 1")
    message.get_by_label("payment: which type").select_option("Transfer")
    message.get_by_label("iban").fill("DE00")
    message.get_by_label("gift").select_option("true")
    message.get_by_label("note").fill(MARKUP)
    message.get_by_label("tags", exact=True).check()
    message.get_by_role("button", name="Add key to tags").click()
    message.get_by_label("tags key 1").fill("urgent")
    message.get_by_label("tags value 1").fill("3")
    message.get_by_label("corner", exact=True).check()
    message.get_by_label("corner 2").fill("5")
    message.get_by_label("extra", exact=True).check()
    message.get_by_label("extra, as JSON").fill("[1, {")
    call.click()
    expect(message.get_by_role("alert")).to_contain_text("extra: this is no JSON")
    message.get_by_label("extra, as JSON").fill("[1, {}]")
    call.click()
    expect(answer).to_contain_text("Answered")
    sent = {
        "items": [{"name": "Table", "count": 2, "parts": [{"name": "Leg"}]}],
        "size": "large",
        "address": {"street": "Main Street 1"},
        "payment": {"kind": "transfer", "iban": "DE00"},
        "gift": True,
        "note": MARKUP,
        "tags": {"urgent": 3},
        "corner": [0, 5],
        "extra": [1, {}],
    }
    rows(page, "rpc").last.locator("summary").click()
    assert json.loads(rows(page, "rpc").last.locator("pre").inner_text()) == sent
    assert json.loads(answer.locator("pre").inner_text())["order"]["items"][0]["parts"][0]["count"] == 1

    # The same as JSON, and back
    switch, text = message.get_by_role("button", name="JSON"), message.get_by_label("Message, as JSON")
    switch.click()
    assert json.loads(text.input_value()) == sent
    text.fill("{")
    switch.click()
    expect(message.get_by_role("alert").last).to_contain_text("this is no JSON")
    text.fill(json.dumps({**sent, "surprise": 1}))
    switch.click()
    expect(message.get_by_role("alert").last).to_have_text("The form can't show all of this, so it stays JSON.")
    text.fill(json.dumps({**sent, "items": [], "payment": {"kind": "card", "number": "12"}}))
    call.click()
    expect(answer).to_contain_text("Error 422")
    switch.click()
    expect(text).to_be_hidden()
    expect(message.get_by_label("payment: which type")).to_have_value("0")
    expect(message.get_by_label("number")).to_have_value("12")

    # A method without an answer, an example, a message of any type, and a type within itself
    cancel = item(page, "orders.cancel")
    expect(cancel.get_by_label("Message", exact=True).last).to_have_value("7")
    cancel.get_by_role("button", name="Send without an answer").click()
    expect(cancel.get_by_role("status").last).to_contain_text("Sent.")
    expect(rows(page, "send")).to_have_count(1)
    cancel.get_by_label("Message", exact=True).last.fill("")
    cancel.get_by_role("button", name="Call").click()
    expect(cancel.get_by_role("alert")).to_have_text("Message: enter a number")
    expect(cancel.get_by_role("status", include_hidden=True).last).to_be_empty()
    echo = item(page, "echo")
    echo.get_by_label("Message, as JSON").first.fill('{"any": [null]}')
    echo.get_by_role("button", name="Call").click()
    expect(echo.get_by_role("status").locator("pre")).to_have_text(re.compile(r'{\s*"any": \[\s*null\s*\]\s*}'))
    grow = item(page, "grow")
    grow.get_by_label("left, as JSON").fill('{"left": 1, "right": 2}')
    grow.get_by_label("right: which type").select_option("integer")
    grow.get_by_label("right", exact=True).fill("3")
    grow.get_by_role("button", name="Call").click()
    expect(grow.get_by_role("status").last).to_contain_text("Answered")


def test_the_timeline_is_bounded_filtered_paused_and_cleared(page: Page) -> None:
    sign_in(page)
    subscribed(page, "busy")
    page.get_by_role("button", name="Pause").click()
    broadcast("chat:busy", (f"no. {number}" for number in range(520)))
    resume = page.get_by_role("button", name="Resume (500 new)")
    expect(resume).to_be_visible()
    assert rows(page, "publication").count() == 0
    resume.click()
    page.wait_for_function("document.querySelectorAll('#log > li[data-kind=publication]').length === 500")
    assert page.locator("#log > li").count() == 500
    expect(rows(page, "publication").last).to_be_in_viewport()
    page.get_by_label("Show events that contain a text").fill("no. 49")
    expect(rows(page, "publication")).to_have_count(11)  # and its tens
    page.get_by_label("Show events that contain a text").fill("")
    page.get_by_label("Show which room").select_option("news")
    expect(page.locator("#log > li:not([hidden])")).to_have_count(0)
    page.get_by_label("Show which room").select_option("")
    page.get_by_label("Show which events").select_option("Joins and leaves")
    expect(rows(page, "publication")).to_have_count(0)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#log > li")).to_have_count(0)
    page.get_by_label("Show which events").select_option("Messages")
    broadcast("chat:busy", ["after"])
    expect(rows(page, "publication")).to_have_count(1)


def test_the_reference_shows_what_the_app_declared(page: Page) -> None:
    expect(page).to_have_title("Order desk: live documentation")
    expect(page.locator("#address")).to_have_text(re.compile(r"^ws://127\.0\.0\.1:\d+/shop/live$"))
    expect(page.get_by_role("link", name="asyncapi.json")).to_have_attribute("href", "asyncapi.json")
    expect(page.locator(".group h2")).to_have_text(["chat", "orders", "Connection", "Rooms", "Methods", "Raw sockets"])
    expect(page.locator(".item", has_text="deprecated").locator("h3")).to_have_text("orders.cancel")
    chat = item(page, "chat:{room}")
    expect(chat.locator(".facts")).to_contain_text("history of 100")
    expect(chat.locator(".schema .type-line")).to_contain_text(["Said", "Topic", "Say"])
    expect(chat.locator(".errors")).to_contain_text("103")
    expect(chat.locator(".errors > *")).to_have_text(
        ["When subscribing", re.compile("^103"), "When publishing", re.compile("^422")]
    )
    expect(item(page, "ticker:{number}").locator(".errors dt")).to_have_text(["102", "103", "422"])
    expect(chat.locator("summary .brief")).to_have_text("Lets everybody read, except in staff.")
    expect(chat.locator(".content > .prose")).to_have_text(re.compile(r"^A room has a history.* misses nothing\.$"))
    expect(item(page, "grow").locator(".content > .prose")).to_have_text("It is the tree that came.")
    raw = item(page, "/ws/{room}")
    expect(raw.locator(".schema .type-line")).to_contain_text(["Say", "Said", "Topic"])
    expect(raw.get_by_role("button")).to_have_count(0)
    create = item(page, "orders.create")
    tree = create.locator(".schema").first
    for _ in range(3):  # as deep as one likes
        tree.locator("summary:visible").get_by_text("Item", exact=True).last.click()
    expect(tree.get_by_text("1 to 80 characters")).to_have_count(0)
    expect(tree.get_by_text("≥ 1")).to_have_count(3)
    expect(tree.get_by_text("at most 60 characters")).to_have_count(1)
    expect(tree.get_by_text("> 0", exact=True)).to_have_count(1)
    text = create.locator(".content > .prose")
    expect(text.locator("ol > li")).to_have_text(
        [re.compile("^Choose the items,\\s+of an order_of_items.$"), "Pay later."]
    )
    expect(text.locator("em")).to_have_text(["Choose", "customer"])
    expect(text.locator("strong")).to_have_text(["Nothing", "In short", "later"])
    expect(text.locator("blockquote")).to_have_text(re.compile(r"^The customer\s+is right: 2 \* 3 \* 4\.$"))

    page.get_by_label("Filter").fill("receipt")
    expect(page.locator(".item:visible h3")).to_have_text(["orders.create"])
    expect(page.locator("#found")).to_have_text("1 of 13")
    page.get_by_label("Filter").fill("iban")  # a field
    expect(page.locator(".item:visible h3")).to_have_text(["orders.create"])
    page.get_by_label("Filter").fill("no such thing")
    expect(page.locator(".group:visible")).to_have_count(0)

    page.goto(page.url.partition("#")[0] + "#method.say")
    page.reload()
    expect(page.locator(".item[open] h3")).to_have_text(["say"])


def test_models_of_one_title_are_different_models(page: Page) -> None:
    twins = item(page, "twins")
    names = [re.compile("first__Twin"), re.compile("second__Twin")]
    expect(twins.locator(".schema").first.locator("summary")).to_have_text(names)
    outer = item(page, "outer")
    expect(outer.locator(".schema").first.locator("summary")).to_have_text(["Inner"])
    expect(outer.get_by_label("depth")).to_be_visible()


@pytest.mark.slow  # tens of forms
def test_every_kind_of_message_has_a_schema_and_a_form(server: LiveServer, page: Page) -> None:
    opened(page, server, "/everything/live/acme/docs")
    expect(page.locator("#address")).to_have_text(re.compile("/everything/live/acme$"))
    page.evaluate("for (const each of document.querySelectorAll('.item')) each.open = true")
    expect(page.locator(".item .content")).to_have_count(page.locator(".item").count())
    for switch in page.get_by_role("button", name="JSON", exact=True).all():
        switch.evaluate("(each) => each.click()")
    add = item(page, "add").get_by_label("Message, as JSON")
    assert json.loads(add.input_value()) == {"kind": "item", "id": 5, "itemName": "a cup"}
    folder = item(page, "node").get_by_label("Message, as JSON")
    folder.fill('{"kind": "folder", "items": [{"kind": "folder", "by_name": {"a": {"kind": "folder"}}}]}')
    item(page, "node").get_by_role("button", name="JSON", exact=True).click()
    expect(folder).to_be_hidden()
    expect(item(page, "node").get_by_label("by_name key 1")).to_have_value("a")
    assert "undefined" not in page.locator("#reference").inner_text()


def test_a_document_that_is_refused_is_told(server: LiveServer, page: Page, console: Console) -> None:
    console.expect("403")
    guarded = f"http://127.0.0.1:{server.port}/shop/guarded/docs"
    page.goto(guarded)
    expect(page.locator(".item h3")).to_have_text("/ws/{room}")
    expect(page.get_by_label("Token")).to_be_hidden()  # nothing asks for one
    page.get_by_text("Options", exact=True).click()
    expect(page.get_by_label("Token")).to_have_attribute("placeholder", "the endpoint describes none")

    def close(route: Any) -> None:
        Gate.is_open = False
        route.continue_()

    page.route("**/asyncapi.json", close, times=1)
    try:
        page.goto(guarded)
        expect(page.get_by_role("alert")).to_have_text("The server refuses the document (403): only for staff")
        expect(page.locator("#connection")).to_be_hidden()
    finally:
        Gate.is_open = True


def test_it_is_accessible_in_light_and_dark_and_on_a_phone(server: LiveServer, page: Page) -> None:
    require_packages("axe-core")
    sign_in(page)
    card = subscribed(page, "axe")
    card.get_by_role("button", name="Publish").click()
    card.get_by_role("button", name="History").click()
    expect(card.locator("tbody tr")).to_have_count(1)
    item(page, "ticker:{number}")
    item(page, "orders.cancel")
    item(page, "orders.create").get_by_label("address", exact=True).check()
    page.get_by_text("Options", exact=True).click()
    rows(page, "publication").last.locator("summary").click()
    assert findings(page) == []
    try:
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 375, "height": 740})
        assert findings(page, "color-contrast", "scrollable-region-focusable", "target-size") == []
        assert page.evaluate("document.documentElement.scrollWidth") == 375
    finally:
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(VIEWPORT)


def findings(page: Page, *rules: str) -> list[str]:
    """What axe finds, by all rules unless some are named."""
    if not page.evaluate("'axe' in window"):
        page.evaluate((JS / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8"))
    found: list[str] = page.evaluate(
        """async (rules) => {
            const options = { resultTypes: ["violations"], ...(rules.length > 0 && { runOnly: rules }) };
            return (await axe.run(document, options)).violations
                .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(", ")}`);
        }""",
        list(rules),
    )
    return found


def test_a_keyboard_is_enough(page: Page) -> None:
    keys = page.keyboard

    def focused() -> str:
        text: str = page.evaluate(
            """() => {
                const { activeElement: at } = document;
                const ring = getComputedStyle(at).outlineStyle !== "none" || at.matches(".skip");
                if (!at.matches(":focus-visible") || !ring) return "invisible focus: " + at.outerHTML;
                return at.id || (at.getAttribute("aria-label") ?? at.textContent).trim();
            }"""
        )
        return text

    def tab_to(name: str) -> None:
        for _ in range(40):
            keys.press("Tab")
            at = focused()
            assert not at.startswith("invisible"), at
            if at == name:
                return
        raise AssertionError(f"no way to {name!r}")

    keys.press("Tab")
    assert focused() == "Skip to the rooms and methods"
    tab_to("token")
    keys.type(TOKEN)
    keys.press("Enter")
    expect(state(page)).to_have_text("Connected")
    tab_to("cut")
    tab_to("filter")
    keys.type("chat:")
    page.keyboard.press("Tab")  # the group
    keys.press("Tab")
    keys.press("Enter")
    chat = page.locator(".item[open]")
    expect(chat.locator("h3")).to_have_text("chat:{room}")
    room = chat.get_by_label("room", exact=True)
    tab_to(room.get_attribute("id") or "")
    keys.type("keys")
    keys.press("Enter")
    card = chat.get_by_role("region", name="Subscription to chat:keys")
    expect(card.locator(".state")).to_contain_text("subscribed")
    tab_to(card.get_by_label("text").get_attribute("id") or "")
    keys.press("Enter")
    expect(rows(page, "publication").last).to_contain_text("Hello")
    tab_to("History")
    keys.press("Space")
    expect(card.locator("tbody")).to_contain_text("Hello")
    tab_to("pause")


def test_its_module_is_strict(tmp_path: Path) -> None:
    require_packages("typescript")
    package = Path(hubbub.__file__).parent
    folders = [str(package / "client"), str(package / "endpoints" / "docs_page")]
    config = {
        "compilerOptions": {
            "allowJs": True,
            "checkJs": True,
            "strict": True,
            "noEmit": True,
            "target": "es2022",
            "module": "esnext",
            "lib": ["es2023", "dom", "dom.iterable"],
            "types": [],
            "rootDirs": folders,
        },
        "files": [f"{folders[1]}/page.js"],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))
    compiler = JS / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run([NODE, compiler, "-p", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
