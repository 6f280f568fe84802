"""The support desk of the tutorial, run as its README says: built by Vite, served by uvicorn, with a worker process.

Its page has the npm package ``centrifuge``. With an alias, the same page has our own module for pages.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from examples.support_desk import smallest
from hubbub import client
from tests.browser.conftest import Console, NewContext
from tests.browser.demo_support import network
from tests.integration.endpoints import free_port
from tests.integration.redis_server import running_redis
from tests.integration.sdk_js import JS, NODE, require_packages
from tests.integration.support import serving

pytestmark = pytest.mark.browser

DESK = Path(__file__).parents[2] / "examples" / "support_desk"


def ours(suffix: str) -> Path:
    """A file of our own client for pages."""
    files = Path(client.__file__).parent.glob(f"*{suffix}")
    return next(file for file in files if "export class Centrifuge" in file.read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the desk, where ``npm install`` was run."""
    require_packages("react", "react-dom", "typescript", "vite")
    shutil.copytree(
        DESK, tmp_path / "support_desk", ignore=shutil.ignore_patterns("node_modules", "dist", "__pycache__")
    )
    (tmp_path / "support_desk" / "page" / "node_modules").symlink_to(JS / "node_modules")
    return tmp_path


def run(folder: Path, program: str, *options: str) -> None:
    """Runs a program of npm in the folder of the page."""
    command = [str(NODE), str(JS / "node_modules" / program), *options]
    done = subprocess.run(command, cwd=folder / "support_desk" / "page", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check(folder: Path, **options: object) -> None:
    """Checks the types of the page, with more options of the compiler."""
    config = {"extends": "./tsconfig.json", "include": ["src"], "compilerOptions": options}
    (folder / "support_desk" / "page" / "tsconfig.check.json").write_text(json.dumps(config))
    run(folder, "typescript/bin/tsc", "--noEmit", "--strict", "--project", "tsconfig.check.json")


def test_the_page_is_strict_typescript_with_the_package_and_with_our_types(folder: Path) -> None:
    check(folder)
    check(folder, paths={"centrifuge": [str(ours(".d.ts"))]})


@contextmanager
def process(folder: Path, environment: dict[str, str], *arguments: str, until: str) -> Iterator[None]:
    """Runs a Python module beside the folder of the desk, from the line that says that it is up."""
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        try:
            for line in running.stdout:
                if until in line:
                    break
            else:
                raise AssertionError(f"{arguments} ended before {until!r}")
            yield
        finally:
            running.terminate()
            running.communicate()


@pytest.fixture(params=["theirs", pytest.param("ours", marks=pytest.mark.slow)])
def built(request: pytest.FixtureRequest, folder: Path) -> Path:
    """A folder with the desk, whose page is built with one of the two clients."""
    options = []
    if request.param == "ours":
        alias = {"resolve": {"alias": {"centrifuge": str(ours(".js"))}}}
        (folder / "support_desk" / "page" / "ours.config.js").write_text(f"export default {json.dumps(alias)}")
        options = ["--config", "ours.config.js"]
    run(folder, "vite/bin/vite.js", "build", "--logLevel", "warn", *options)
    return folder


def sign_in(page: Page, url: str, name: str) -> Page:
    page.goto(url)
    page.get_by_label("Your name").fill(name)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Support desk")
    return page


def say(page: Page, label: str, text: str) -> None:
    page.get_by_label(label).fill(text)
    page.keyboard.press("Enter")


def test_the_first_page_of_the_tutorial_shows_what_is_said(new_context: NewContext) -> None:
    with serving(smallest.app) as server:
        context = new_context()
        ann, dana, bob = (context.new_page() for _ in range(3))
        for page, name in ((ann, "ann"), (dana, "dana"), (bob, "bob")):
            page.goto(f"{server.http('/')}?name={name}")
        said = [page.get_by_role("listitem") for page in (ann, dana, bob)]
        expect(said[2]).to_have_text(["You can’t read this ticket: permission denied."])
        for page, text in ((ann, "<b>Hello</b>"), (dana, "Hello"), (bob, "Hello")):
            say(page, "Your message", text)
            if page is not bob:
                expect(page.get_by_label("Your message")).to_have_value("")
        for shown in said[:2]:
            expect(shown).to_have_text(["ann: <b>Hello</b>", "dana: Hello"])
        expect(said[2]).to_have_text(
            ["You can’t read this ticket: permission denied.", "Not sent: open the ticket first"]
        )


def test_a_customer_and_an_agent_talk(built: Path, new_context: NewContext, console: Console, tmp_path: Path) -> None:
    console.expect("401")  # a page that opens asks who is signed in
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running_redis(tmp_path) as redis:
        environment = {
            "JWT_KEY": secrets.token_hex(),
            "BROKER": redis.url(),
            "STALE_AFTER_S": "0",
            "DATABASE": str(tmp_path / "desk.db"),
        }
        server = ("uvicorn", "support_desk.app:app", "--port", f"{port}")
        with process(built, environment, *server, until="Uvicorn running"), network(port) as line:
            phone = new_context(viewport={"width": 375, "height": 667}, color_scheme="dark").new_page()
            ann = sign_in(phone, line.url, "Ann")
            dana = sign_in(new_context().new_page(), url, "Dana")

            # A notice from a route, and who is there
            ann.get_by_role("link", name="New ticket").click()
            ann.get_by_label("Subject").fill("My parcel is late")
            say(ann, "What happened?", "It was sent on Monday.")
            dana.get_by_role("link", name="Ann opened “My parcel is late”").click()
            for page in (ann, dana):
                expect(page.get_by_role("heading", level=2)).to_have_text("My parcel is late")
                expect(page.get_by_test_id("present")).to_have_text("Ann, Dana")
            assert ann.evaluate("document.documentElement.scrollWidth") == 375

            # A message, and what was missed while the line was cut
            messages = ann.get_by_role("list", name="Messages").locator("p")
            say(dana, "Your message", "Let me look.")
            expect(messages).to_have_text(["It was sent on Monday.", "Let me look."])
            line.cut()
            expect(ann.get_by_text("No connection")).to_be_visible()
            say(dana, "Your message", "It is in Lyon.")
            expect(dana.get_by_role("list", name="Messages").locator("p")).to_have_count(3)
            line.restore()
            ann.evaluate("dispatchEvent(new Event('online'))")  # the client need not wait for its next attempt
            expect(messages).to_have_text(["It was sent on Monday.", "Let me look.", "It is in Lyon."])
            expect(ann.get_by_text("No connection")).to_be_hidden()

            # A permission that is refused
            other = dana.request.post(f"{url}/api/tickets", data={"subject": "Private", "text": "For agents"}).json()
            ann.evaluate(f"location.hash = {other['id']}")
            expect(ann.get_by_role("alert")).to_have_text("You can’t read this ticket: permission denied.")

            # A notice of what happened elsewhere: from a route, and from a worker process
            dana.get_by_role("button", name="Close ticket").click()
            ann.get_by_role("link", name="Dana closed “My parcel is late”").click()
            expect(ann.get_by_label("Your message")).to_be_hidden()
            with process(built, environment, "support_desk.worker", until="closed 1"):
                expect(dana.get_by_role("status", name="Notices").get_by_role("link")).to_have_text(
                    ["“Private” was closed, because nobody wrote any more"]
                )
            dana.get_by_role("button", name="Sign out").click()
            expect(dana.get_by_label("Your name")).to_be_visible()
