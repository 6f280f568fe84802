"""Endpoints, with the official JavaScript SDK and our own in Chromium: the tests of the SDKs, as far as a page may
differ.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeAlias

import pytest
from fastapi.staticfiles import StaticFiles
from playwright.async_api import async_playwright

from hubbub.client import BrowserClient
from tests.browser.conftest import launching
from tests.integration import test_endpoint_sdk as shared
from tests.integration.live import Live, live_app
from tests.integration.sdk_js import JS, JsPage, JsSdk, require_packages

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.usefixtures("quick_sweeps")]


name = shared.name
PageAt: TypeAlias = Callable[[str], Awaitable[JsPage]]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    live = Live()
    live.app.mount("/js", StaticFiles(directory=JS))
    live.app.mount("/hubbub", BrowserClient())
    with live_app(live, loop="uvloop"):
        yield live


@pytest.fixture(scope="module")
async def page_at() -> AsyncIterator[PageAt]:
    """Opens a page of an origin, once."""
    require_packages()
    options = launching()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**options)
        context = await browser.new_context()
        pages: dict[str, JsPage] = {}

        async def page_at(origin: str) -> JsPage:
            if origin not in pages:
                pages[origin] = await JsPage.opened(context, origin)
            return pages[origin]

        yield page_at
        await browser.close()


@pytest.fixture(params=["json", "protobuf", "ours"])
def sdk(request: pytest.FixtureRequest, page_at: PageAt) -> JsSdk:
    return JsSdk(page_at, sdk=request.param)


test_a_client_connects_and_is_welcomed = shared.test_a_client_connects_and_is_welcomed
test_data_reaches_connect = shared.test_data_of_the_client_reaches_connect_and_a_token_needs_no_callback
test_requests_that_are_refused_are_answers = shared.test_requests_that_are_refused_are_answers
test_clients_publish_what_a_rule_gives = shared.test_clients_publish_where_there_is_a_rule_and_only_what_it_gives
test_presence_and_history_are_for_subscribers = shared.test_presence_and_history_are_for_subscribers
test_bytes_are_raw_in_protobuf_and_base64_in_json = shared.test_bytes_are_raw_in_protobuf_and_base64_in_json
test_a_client_that_missed_too_much_is_told = shared.test_a_client_that_missed_too_much_is_told
test_tokens = shared.test_a_wrong_token_ends_for_good_and_an_expired_one_is_fetched_again
test_a_kicked_user_does_not_come_back = shared.test_a_kicked_user_does_not_come_back


@pytest.mark.parametrize("missed", [1, 100, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_a_client_that_was_cut_off_recovers(missed: int, live: Live, sdk: JsSdk, name: str) -> None:
    await shared.test_a_client_that_was_cut_off_recovers_exactly_what_it_missed(missed, live, sdk, name)


@pytest.mark.parametrize("code", [4000, 4500])
async def test_a_code_says_whether_the_client_comes_back(code: int, live: Live, sdk: JsSdk) -> None:
    await shared.test_a_code_says_whether_the_client_comes_back(code, code, live, sdk)
