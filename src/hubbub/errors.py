"""The exceptions of hubbub. Each message says what was wrong, what is accepted, and what to do."""

from __future__ import annotations

import re

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class HubbubError(Exception):
    """The base class of every error that hubbub raises."""


class InvalidArgument(HubbubError, ValueError):
    """An argument is not acceptable.

    Attributes:
        argument: The name of the argument (or option) as the caller wrote it.
        problem: What is wrong with the value.
        accepted: The accepted values.
    """

    def __init__(self, argument: str, problem: str, accepted: str) -> None:
        super().__init__(f"{argument}: {problem}; accepted: {accepted}")
        self.argument = argument
        self.problem = problem
        self.accepted = accepted


class NotSupported(HubbubError, TypeError, AttributeError):
    """Code for a hand-written manager used something that hubbub does not have. The message says what to write."""


class InvalidName(InvalidArgument):
    """A room name, a user id or a key has the right type, but is empty, too long or reserved.

    Such values come from clients, in URLs and messages, so a bad one is the client's error and never crashes the app.
    If it is not caught, a WebSocket handler closes the socket with 1008 and the reason, and an HTTP route answers with
    422.
    """


class NotInstalled(HubbubError, RuntimeError):
    """The manager is not installed on the app, or a subclass does not call ``super().__init__()``."""


class NotRunning(HubbubError, RuntimeError):
    """The manager is used before the app's lifespan started it, or after it stopped."""


class WrongLoop(HubbubError, RuntimeError):
    """The caller runs on another event loop than the manager."""


class WrongThread(HubbubError, RuntimeError):
    """The thread does not fit the call: ``from_thread`` where an event loop runs, or ``*_nowait`` where none runs."""


class ThreadTimeout(HubbubError, TimeoutError):
    """A ``from_thread`` call did not finish in time."""


class BrokerUnavailable(HubbubError, ConnectionError):
    """The broker can't be reached in time. A call that was in flight may have taken effect."""


class NoSuchWorker(HubbubError, LookupError):
    """No worker of that name is connected to the broker: it has stopped, or its connection is lost.

    Attributes:
        worker: The name of the worker.
    """

    def __init__(self, worker: str) -> None:
        super().__init__(f"no worker named {shown(worker)} is connected to the broker; ask for its name again")
        self.worker = worker


def counted(number: int, things: str) -> str:
    """Returns a number with its noun, for messages and log lines: ``1 room``, ``2 rooms``.

    Args:
        number: The number.
        things: The noun in the plural, with a final ``s``.
    """
    return f"{number} {things[:-1] if number == 1 else things}"


def shown(value: object, *, limit: int = 80) -> str:
    """Returns a short ``repr`` for messages and log lines: one line without control characters. Never raises."""
    try:
        text = _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", ascii(value))
    except Exception:  # a repr may raise anything
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[:limit]}…"
