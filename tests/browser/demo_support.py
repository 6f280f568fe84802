"""The demo as a process of its own, a network that can be cut, and people at its pages.

``python -m tests.browser.demo_support docs/images`` takes the pictures for the README.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.request import Request, urlopen

from playwright.sync_api import BrowserContext, Locator, Page, expect, sync_playwright
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.integration.endpoints import free_port

DEADLINE_S = 45.0


class DemoServer:
    """``hubbub demo`` on one port, which can be stopped and started again.

    Args:
        options: What its command line has besides.
        workers: How many are to be up before it counts as started.
    """

    def __init__(self, *options: str, workers: int = 1) -> None:
        self.port = free_port()
        self._options = options
        self._workers = workers
        self.log: list[str] = []
        self._key = secrets.token_urlsafe(32)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "hubbub", "demo", "--port", str(self.port), *self._options]
        environment = os.environ | {"HUBBUB_DEMO_KEY": self._key}
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        lines: Queue[str | None] = Queue()

        def read() -> None:
            assert process.stderr is not None
            with process.stderr as stderr:
                for line in stderr:
                    self.log.append(line)
                    lines.put(line)
            lines.put(None)

        self._process = process
        self._reader = threading.Thread(target=read, daemon=True)
        self._reader.start()
        with self._killed_on_failure():
            up = 0
            while up < self._workers:
                line = lines.get()  # takes as long as the machine needs: the test has a timeout
                assert line is not None, "the demo did not start"
                up += ("Uvicorn running" if self._workers == 1 else "Application startup complete") in line

    def stop(self) -> None:
        if self._process is None:
            return
        with self._killed_on_failure():
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
        self._end()

    @contextmanager
    def _killed_on_failure(self) -> Iterator[None]:
        """Leaves no process behind when something fails, a test's timeout included, and shows what they logged."""
        try:
            yield
        except BaseException as error:
            if self._process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._end()
            error.add_note("the demo logged: " + "".join(self.log))
            raise

    def _end(self) -> None:
        """Waits for the process and the reader of its log."""
        if self._process is not None:
            self._process.wait()
        if self._reader is not None:
            self._reader.join(DEADLINE_S)
        self._process = None


@contextmanager
def demo_server(*options: str, workers: int = 1) -> Iterator[DemoServer]:
    server = DemoServer(*options, workers=workers)
    server.start()
    try:
        yield server
    finally:
        server.stop()
    complaints = [line for line in server.log if re.search(r"ERROR|CRITICAL|Traceback|Exception", line)]
    assert not complaints, "".join(server.log)


class Network:
    """A TCP proxy in front of a server: the cable between it and some pages."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._up = True
        self._holding = False
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hold(self) -> None:
        """Takes what the pages send, and lets nothing of it through: a cable that is cut and has not noticed."""
        with self._lock:
            self._holding = True

    def cut(self) -> None:
        """Resets every connection, and each new one at once."""
        with self._lock:
            self._up = False
            for each in self._sockets:
                _reset(each)

    def restore(self) -> None:
        with self._lock:
            self._up, self._holding = True, False

    def close(self) -> None:
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._up:
                    _reset(client)
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._target), DEADLINE_S)
                except OSError:
                    _reset(client)
                    client.close()
                    continue
                server.settimeout(None)
                self._sockets |= {client, server}
            self._run(self._pump, client, server, True)
            self._run(self._pump, server, client, False)

    def _pump(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not (outward and self._holding):
                    sink.sendall(data)
        with self._lock:
            for each in (source, sink):
                if each in self._sockets:
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
            self._sockets.discard(source)
        source.close()


def _reset(each: socket.socket) -> None:
    """Ends a connection as a cut cable does in the end: with a reset, and no word before."""
    with suppress(OSError):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        each.shutdown(socket.SHUT_RDWR)


@contextmanager
def network(port: int) -> Iterator[Network]:
    network = Network(port)
    try:
        yield network
    finally:
        network.close()


def sign_in(url: str, name: object) -> str:
    """Gives a token. Raises urllib's HTTPError where the server refuses."""
    body = json.dumps({"name": name}).encode()
    request = Request(f"{url}/api/session", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=DEADLINE_S) as response:
        token: str = json.load(response)["token"]
        return token


class Guest:
    """Somebody who has signed in, and has no browser."""

    def __init__(self, url: str, name: str) -> None:
        self.token = sign_in(url, name)
        self.url = url
        self.name = name

    @contextmanager
    def voice(self, room: str) -> Iterator[Voice]:
        """Joins a room of the chat without a page."""
        with self.connect("/live") as socket, Voice(socket, f"chat:{room}") as voice:
            voice.ask(connect={})
            voice.ask(subscribe={"channel": voice.room})
            yield voice

    def connect(self, path: str) -> ClientConnection:
        """Opens a WebSocket without a page. What it is sent need not be read."""
        url = self.url.replace("http", "ws") + path
        subprotocols = [Subprotocol("bearer"), Subprotocol(self.token)]
        return connect(url, subprotocols=subprotocols, compression=None, max_queue=None)


class Person(Guest):
    """Somebody with a browser of their own: one context, whose pages are tabs."""

    def __init__(self, new_context: Callable[..., BrowserContext], url: str, name: str, **options: Any) -> None:
        super().__init__(url, name)
        self.context = new_context(**options)
        self.context.add_init_script(f"""
            if (location.protocol !== "about:" && !localStorage.getItem("signed-in-before")) {{
                localStorage.setItem("signed-in-before", "yes");
                localStorage.setItem("hubbub-demo-token", "{self.token}");
            }}
        """)

    def open(self, path: str, tab: Page | None = None) -> Page:
        """Opens a page, by default in a new tab, and waits until it is connected."""
        page = tab or self.context.new_page()
        page.goto(self.url + path)
        expect(status(page)).to_have_text("Connected")
        return page

    def tabs(self, *paths: str) -> list[Page]:
        """Opens pages in the tabs that there are, which costs half of new ones. Tabs that are left show nothing."""
        tabs = self.context.pages
        for tab in tabs[len(paths) :]:
            tab.goto("about:blank")
        tabs += [self.context.new_page() for _ in paths[len(tabs) :]]
        return [self.open(path, tab) for path, tab in zip(paths, tabs, strict=False)]


class Voice:
    """A client of the endpoint without a page, in one room. What it is sent need not be read."""

    def __init__(self, socket: ClientConnection, room: str) -> None:
        self.room = room
        self._socket = socket
        self._last_id = 0
        self._replies: Queue[dict[str, Any]] = Queue()
        self._texts: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Voice:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._reader.join(DEADLINE_S)

    def say(self, text: str) -> None:
        """Sends a message, and waits until the server has published it."""
        reply = self.ask(publish={"channel": self.room, "data": {"text": text}})
        assert "error" not in reply, reply

    def ask(self, **command: Any) -> dict[str, Any]:
        """Sends a command, and returns the reply."""
        self._last_id += 1
        self._socket.send(json.dumps({"id": self._last_id, **command}))
        reply = self._replies.get(timeout=DEADLINE_S)
        assert reply["id"] == self._last_id
        return reply

    def hear(self) -> str:
        """Returns the next message of the room."""
        return self._texts.get(timeout=DEADLINE_S)

    def _read(self) -> None:
        """Sorts what arrives, and answers pings, until the socket is closed."""
        for frame in self._socket:
            for reply in map(json.loads, str(frame).split("\n")):
                push = reply.get("push", {})
                if not reply:
                    self._socket.send("{}")
                elif "id" in reply:
                    self._replies.put(reply)
                elif "pub" in push and push["channel"] == self.room:
                    self._texts.put(push["pub"]["data"]["text"])


def status(page: Page) -> Locator:
    return page.locator("#status-text")


def try_now(page: Page) -> None:
    """Has a page not wait any longer for its next attempt, as if the network had come back. Without effect if open."""
    page.evaluate("dispatchEvent(new Event('online'))")


def say(page: Page, text: str) -> None:
    """Writes a message in a chat page, and waits until the server has it."""
    page.locator("#text").fill(text)
    page.locator("#text").press("Enter")
    expect(page.locator(".message:not(.pending) .text").last).to_have_text(text)


def texts(page: Page) -> list[str]:
    """What was said, as the page shows it."""
    return page.locator("#messages .text").all_text_contents()


def draw(page: Page, *points: tuple[float, float]) -> None:
    """Draws a line on the board with the mouse, through points given as parts of its width and height."""
    page.bring_to_front()  # in a tab behind another one, the browser takes a second for each move
    box = page.locator("#board").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place)
    page.mouse.up()


_COLOUR_AT = """([x, y]) => {
    const board = document.getElementById("board");
    const { data } = board.getContext("2d").getImageData(x * board.width, y * board.height, 1, 1);
    return data[3] ? [data[0], data[1], data[2]].join(" ") : "nothing";
}"""


def await_colour(page: Page, point: tuple[float, float], colour: str) -> None:
    """Waits until the board has a colour, such as "217 45 58", at a point. "nothing": it is not drawn on there."""
    page.bring_to_front()
    page.wait_for_function(f"([point, colour]) => ({_COLOUR_AT})(point) === colour", arg=[point, colour])


# The pictures


def take_pictures(directory: Path) -> None:
    """Takes the pictures for the README."""
    with demo_server() as server, sync_playwright() as playwright:
        path = os.environ.get("HUBBUB_CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)

        def new_context(**options: Any) -> BrowserContext:
            return browser.new_context(viewport={"width": 1200, "height": 720}, locale="en-GB", **options)

        ann, bob = (Person(new_context, server.url, name) for name in ("Ann Lee", "Bob"))
        hers, his, his_other = ann.open("/chat"), bob.open("/chat"), bob.open("/chat")
        for page, text in (
            (hers, "Morning! I drew a boat on the whiteboard."),
            (his, "Saw it. My phone was in the tunnel while you drew, and it is all there."),
            (his, "Liked your post, too."),
            (hers, "I know: every tab of mine told me."),
            (hers, "What happens when somebody restarts the server?"),
            (his, "The pages say that its history was reset, and go on."),
        ):
            say(page, text)
        published = hers.request.post(
            f"{server.url}/api/posts",
            headers={"Authorization": f"Bearer {ann.token}"},
            data={"text": "hubbub is out"},
        )
        post = published.json()["id"]
        his_other.request.put(f"{server.url}/api/posts/{post}/like", headers={"Authorization": f"Bearer {bob.token}"})
        expect(hers.locator(".toast")).to_have_count(1)
        his.locator("#text").press_sequentially("Let me sh")
        expect(hers.locator("#typing")).to_have_text("Bob is typing…")
        hers.screenshot(path=directory / "demo.png", animations="disabled")
        docs = new_context().new_page()
        docs.set_viewport_size({"width": 1360, "height": 860})
        docs.goto(f"{server.url}/live/docs")
        docs.get_by_label("Token").fill(ann.token)
        docs.get_by_role("button", name="Connect", exact=True).click()
        docs.get_by_role("heading", name="chat:{room}").click()
        docs.get_by_label("room", exact=True).fill("lobby")
        docs.get_by_role("button", name="Subscribe", exact=True).click()
        docs.get_by_role("button", name="Cut the line").click()
        say(his, "I am in a tunnel, too.")
        docs.get_by_role("button", name="Restore the line").click()
        expect(docs.locator("#state")).to_contain_text("1 missed message")
        docs.get_by_label("text", exact=True).fill("Hello from the documentation")
        docs.get_by_role("button", name="Publish").click()
        expect(docs.locator("#log > li").last).to_contain_text("answer")
        docs.get_by_role("button", name="Presence", exact=True).click()
        expect(docs.locator(".answer tbody tr")).to_have_count(2)
        docs.locator(".answer").scroll_into_view_if_needed()
        docs.screenshot(path=directory / "docs-page.png", animations="disabled")
        browser.close()


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]))
