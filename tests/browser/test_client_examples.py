"""The page that the docs show for the official JavaScript SDK."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from examples import clients
from tests.integration.sdk_js import JS, require_packages
from tests.integration.support import serving

pytestmark = pytest.mark.browser


def test_the_page_with_the_sdk_runs_as_printed(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    require_packages()
    monkeypatch.chdir(JS)  # where its node_modules is
    with serving(clients.app) as server:
        page.goto(server.http("/"))
        expect(page.locator("#state")).to_have_text("connected")
        for text in ("hello", ""):
            page.locator("input").fill(text)
            page.locator("input").press("Enter")
        expect(page.locator("li")).to_have_text(["ann: hello"])
        expect(page.locator("#state")).to_have_text("text: String should have at least 1 character (422)")
        page.goto("about:blank")
