"""The state of a manager: installed on an app, running on one event loop, draining. A wrong state raises an error."""

from __future__ import annotations

import asyncio

from starlette.websockets import WebSocket

from .errors import NotInstalled, NotRunning, WrongLoop, WrongThread, shown
from .paths import Paths

_TWO = "If you did, are there two instances? The one that is used must be the one that is installed"


class Lifecycle:
    """The state of a manager, and the checks that calls make of it.

    Attributes:
        installed: Whether `ConnectionManager.install` was called.
        only: The paths of the WebSockets that the manager serves; None for all.
        draining: Whether the manager closes its connections and refuses new ones.
    """

    __slots__ = ("_loop", "draining", "installed", "only")

    def __init__(self) -> None:
        self.installed: bool = False
        self.only: Paths | None = None
        self.draining: bool = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def running(self) -> bool:
        """Whether the manager has started and not stopped."""
        return self._loop is not None

    def check_stopped(self) -> None:
        """Raises WrongLoop if the manager runs already."""
        if self._loop is not None:
            raise WrongLoop(
                "this manager runs already: two apps, or two `with TestClient(app)` at once, would share one event "
                "loop's sockets; use one client, or a manager for each app"
            )

    def start(self) -> None:
        """Binds the manager to the running loop."""
        self._loop = asyncio.get_running_loop()
        self.draining = False

    def stop(self) -> None:
        """Unbinds the manager from its loop."""
        self._loop = None
        self.draining = False

    def check_running(self, websocket: WebSocket | None = None) -> asyncio.AbstractEventLoop:
        """Returns the loop that the manager runs on.

        Raises:
            NotInstalled: Neither `install` nor `lifespan` was used. The message has the line to add.
            NotRunning: The app's lifespan did not start the manager.
        """
        if self._loop is not None:
            return self._loop
        scope = websocket.scope if isinstance(websocket, WebSocket) else {}
        mounted = scope.get("app_root_path", scope.get("root_path")) != scope.get("root_path")  # Starlette's Mount
        raise self._why_not_running(mounted=mounted)

    def check_loop(self, websocket: WebSocket | None = None) -> None:
        """Raises an error if the caller does not run on the manager's event loop."""
        running = asyncio.get_running_loop()
        if running is not self._loop and running is not self.check_running(websocket):
            raise WrongLoop(
                "this ConnectionManager runs on another event loop. In tests, use one client for all sockets: "
                "`with TestClient(app) as client:`; from a thread, use `manager.from_thread`"
            )

    def check_thread(self) -> None:
        """Checks the loop for a plain function, which may be called in a thread that runs no event loop."""
        self.check_running()
        try:
            self.check_loop()
        except WrongLoop:
            raise
        except RuntimeError:
            raise WrongThread(
                "the manager's event loop does not run in this thread: call `manager.from_thread.broadcast(...)` or "
                "`send_to_user(...)` (the calls that end in _nowait are for plain functions on the event loop)"
            ) from None

    def _why_not_running(self, *, mounted: bool) -> NotInstalled | NotRunning:
        if not self.installed:
            return NotInstalled(
                "this ConnectionManager is not installed: add `manager.install(app)` after `app = FastAPI()`. " + _TWO
            )
        hint = (
            "The app is mounted below another one, and the lifespan of a mounted app does not run: "
            "`manager.install(app)` on the outermost app. "
            if mounted
            else "In tests, use the client as a context manager: `with TestClient(app) as client:`. The lifespan of a "
            "mounted app does not run: install on the outermost app. A server has to run the lifespan "
            "(not daphne, nor `uvicorn --lifespan off`). "
        )
        return NotRunning(
            "this ConnectionManager is not running, because the app's lifespan has not started it. " + hint + _TWO
        )

    def not_installed_here(self, path: str, what: str = "socket") -> NotInstalled:
        """Returns the error for a socket or request of another app, or of a path that the manager does not serve."""
        if self.only is not None:
            return NotInstalled(
                f"this ConnectionManager does not serve {shown(path)}: add it to "
                f"`manager.install(app, only={list(self.only.patterns)})`. {_TWO}"
            )
        return NotInstalled(
            f"this ConnectionManager is not installed on the app that serves this {what}: add `manager.install(app)`. "
            + _TWO
        )
