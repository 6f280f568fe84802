"""Endpoints, with the official JavaScript SDK and our own in Chromium: the tests of the SDKs, as far as a page may
differ.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Literal, TypeAlias

import pytest
from fastapi.staticfiles import StaticFiles
from playwright.async_api import BrowserContext, async_playwright, expect

from examples import clients
from hubbub.client import BrowserClient
from tests.browser.conftest import launching
from tests.integration import test_endpoint_sdk as shared
from tests.integration.live import Hostile, Live, live_app
from tests.integration.sdk_js import JS, JsPage, JsSdk, require_packages
from tests.integration.support import DEADLINE_S, eventually, serving

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.usefixtures("quick_sweeps")]


expect.set_options(timeout=DEADLINE_S * 1000)
name = shared.name
Body: TypeAlias = Callable[[Live, JsSdk], Awaitable[None]]
Module: TypeAlias = Literal["json", "protobuf", "ours"]
PageAt: TypeAlias = Callable[[str], Awaitable[JsPage]]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    live = Live()
    live.app.mount("/js", StaticFiles(directory=JS))
    live.app.mount("/hubbub", BrowserClient())
    with live_app(live, loop="uvloop"):
        yield live


@pytest.fixture(scope="module")
async def context() -> AsyncIterator[BrowserContext]:
    require_packages()
    options = launching()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**options)
        yield await browser.new_context()
        await browser.close()


@pytest.fixture(scope="module")
def page_at(context: BrowserContext) -> PageAt:
    """Opens a page of an origin, once."""
    pages: dict[str, JsPage] = {}

    async def page_at(origin: str) -> JsPage:
        if origin not in pages:
            pages[origin] = await JsPage.opened(context, origin)
        return pages[origin]

    return page_at


@pytest.fixture(params=["json", "protobuf", "ours"])
def sdk(request: pytest.FixtureRequest, page_at: PageAt) -> JsSdk:
    return JsSdk(page_at, sdk=request.param)


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        shared.test_a_client_connects_and_is_welcomed,
        shared.test_data_of_the_client_reaches_connect_and_a_token_needs_no_callback,
        shared.test_requests_that_are_refused_are_answers,
        shared.test_clients_publish_where_there_is_a_rule_and_only_what_it_gives,
        shared.test_a_wrong_token_ends_for_good_and_an_expired_one_is_fetched_again,
        shared.test_a_code_says_whether_the_client_comes_back,
    ],
)
async def test_what_holds_for_every_client_holds_in_a_page(body: Body, live: Live, sdk: JsSdk) -> None:
    await body(live, sdk)


@pytest.mark.slow
@pytest.mark.parametrize("missed", [0, 1, 100, 10_000])
async def test_a_page_that_was_cut_off_recovers(missed: int, live: Live, sdk: JsSdk, name: str) -> None:
    await shared.test_a_client_that_was_cut_off_recovers_exactly_what_it_missed(missed, live, sdk, name)


async def test_a_page_asks_publishes_recovers_and_is_sent_away(live: Live, sdk: JsSdk, name: str) -> None:
    await shared.test_presence_and_history_are_for_subscribers(live, sdk, f"{name} asks")
    await shared.test_bytes_are_raw_in_protobuf_and_base64_in_json(live, sdk, f"{name} binary")
    await shared.test_a_client_that_was_cut_off_recovers_exactly_what_it_missed(100, live, sdk, f"{name} cut")
    await shared.test_a_client_that_missed_too_much_is_told(live, sdk, f"{name} too much")
    await shared.test_a_kicked_user_does_not_come_back(live, sdk)


async def test_the_page_of_the_docs_runs_as_printed(context: BrowserContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(JS)  # where its node_modules is
    page = await context.new_page()
    with serving(clients.app) as server:
        await page.goto(server.http("/"))
        await expect(page.locator("#state")).to_have_text("connected")
        for text in ("hello", ""):
            await page.locator("input").fill(text)
            await page.locator("input").press("Enter")
        await expect(page.locator("li")).to_have_text(["ann: hello"])
        await expect(page.locator("#state")).to_have_text("text: String should have at least 1 character (422)")
        await page.close()


@pytest.mark.parametrize(
    ("module", "transports", "used"),
    [
        ("json", ["websocket", "http_stream", "sse"], "http_stream"),
        pytest.param("protobuf", ["websocket", "http_stream"], "http_stream", marks=pytest.mark.slow),
        pytest.param("json", ["websocket", "sse"], "sse", marks=pytest.mark.slow),
        pytest.param("ours", ["websocket", "http_stream", "sse"], "http_stream", marks=pytest.mark.slow),
        ("ours", ["websocket", "sse"], "sse"),
    ],
)
async def test_a_page_behind_a_proxy_that_breaks_websockets(
    live: Live,
    page_at: PageAt,
    module: Module,
    transports: list[str],
    used: str,
    name: str,
) -> None:
    async with Hostile(live.server.port) as proxy:
        sdk = JsSdk(page_at, sdk=module, transports=transports)
        async with sdk.connected(live, port=proxy.port) as ann:
            assert ann.transports == [used]
            room = await ann.subscribed(f"chat:{name}")
            assert await ann.rpc("aside", "hello") == "hello"
            await live.publish(room.name, "first")
            proxy.cut()
            await eventually(lambda: not live.manager.active_connections)
            await live.publish(room.name, "missed")
            proxy.mend()
            await eventually(lambda: room.got == ["first", "missed"])
            assert ann.transports == [used, used]
