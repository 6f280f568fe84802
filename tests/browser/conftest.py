"""Real Chromium for the tests of what runs in a page.

Any complaint on a page's console, and any uncaught error, fails the test, unless it told `console` to expect it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, WebError, expect, sync_playwright

NewContext: TypeAlias = Callable[..., BrowserContext]

DEADLINE_MS = 30_000

expect.set_options(timeout=DEADLINE_MS)  # else 5 s, and a busy machine may need more

# What Chromium itself logs when a connection fails or is given up: a client that reconnects can't help it.
_LOST_CONNECTION = re.compile(
    # An empty response is a connection that was cut between the request and the first byte of its answer.
    r"^WebSocket connection to '[^']*' failed|net::ERR_(INTERNET_DISCONNECTED|EMPTY_RESPONSE|CONNECTION_\w+)"
)


class Console:
    """What the pages of one test complained about."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._expected = [_LOST_CONNECTION]

    def expect(self, pattern: str) -> None:
        """Lets complaints pass that the test provokes."""
        self._expected.append(re.compile(pattern))

    @property
    def unexpected(self) -> list[str]:
        return [text for text in self.complaints if not any(each.search(text) for each in self._expected)]

    @contextmanager
    def watch(self, context: BrowserContext) -> Iterator[None]:
        context.on("console", self._heard)
        context.on("weberror", self._threw)
        yield
        context.remove_listener("console", self._heard)
        context.remove_listener("weberror", self._threw)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def _threw(self, error: WebError) -> None:
        self.complaints.append(str(error.error))


def chromium() -> str | None:
    """The system's Chromium. An empty HUBBUB_CHROMIUM says that there is none."""
    if "HUBBUB_CHROMIUM" in os.environ:
        return os.environ["HUBBUB_CHROMIUM"] or None
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def launching() -> dict[str, Any]:
    """How Playwright is to launch Chromium. Without one, the test is skipped; in CI, it fails."""
    path = chromium()
    if path is None:
        problem = "no Chromium: install chromium, or set HUBBUB_CHROMIUM to one"
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(problem)
        pytest.skip(problem)
    return {
        "executable_path": path,
        "chromium_sandbox": os.geteuid() != 0,  # Chromium's sandbox refuses to run as root
        "args": ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
    }


# One for each module, not for the session: while Playwright's sync API is up, no asyncio loop can run in this thread.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = launching()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**options)
        yield browser
        browser.close()


@pytest.fixture
def console() -> Iterator[Console]:
    console = Console()
    yield console
    assert console.unexpected == []


@pytest.fixture
def new_context(browser: Browser, console: Console) -> Iterator[NewContext]:
    """Makes browser contexts: each is a person with cookies and storage of their own, their pages are tabs."""
    with ExitStack() as stack:

        def make(**options: Any) -> BrowserContext:
            context = browser.new_context(**options)
            stack.callback(context.close)
            context.set_default_timeout(DEADLINE_MS)
            stack.enter_context(console.watch(context))
            return context

        yield make


@pytest.fixture
def context(new_context: NewContext) -> BrowserContext:
    return new_context()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()
