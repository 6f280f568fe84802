"""What hubbub raises: every error says what was wrong, where, and what would be right."""

from __future__ import annotations

import re

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class HubbubError(Exception):
    """Base of every error that hubbub raises."""


class InvalidArgument(HubbubError, ValueError):
    """An argument is not acceptable.

    Attributes:
        argument: The name of the argument (or option) as the caller wrote it.
        problem: What was wrong with the value.
        accepted: What would have been accepted.
    """

    def __init__(self, argument: str, problem: str, accepted: str) -> None:
        super().__init__(f"{argument}: {problem}; accepted: {accepted}")
        self.argument = argument
        self.problem = problem
        self.accepted = accepted


class NotSupported(HubbubError, TypeError, AttributeError):
    """A hand-written manager allows this, and hubbub does not. The message says what to write instead."""


class InvalidName(InvalidArgument):
    """The name of a room, the id of a user or a key has the right type, but is empty, too long or reserved.

    Such values come from clients, in URLs and messages, so a client causes this error, and it never crashes the app.
    Uncaught in a WebSocket handler it closes the socket with 1008 and the reason; in an HTTP route it is answered with
    422.
    """


class NotInstalled(HubbubError, RuntimeError):
    """The manager is not installed on the app, or a subclass does not call ``super().__init__()``."""


class NotRunning(HubbubError, RuntimeError):
    """The manager is used before the app's lifespan started it, or after it stopped."""


class WrongLoop(HubbubError, RuntimeError):
    """The manager runs on another event loop than the one of the caller."""


class WrongThread(HubbubError, RuntimeError):
    """A ``from_thread`` call in a thread that runs an event loop, or a ``*_nowait`` call in a thread that runs none."""


class ThreadTimeout(HubbubError, TimeoutError):
    """A ``from_thread`` call did not finish in time."""


class BrokerUnavailable(HubbubError, ConnectionError):
    """The broker can't be reached in time. What was in flight may have taken effect."""


def counted(number: int, things: str) -> str:
    """Gives a number with its noun, for messages and log lines: ``1 room``, ``2 rooms``.

    Args:
        number: How many.
        things: The noun in the plural, with a final ``s``.
    """
    return f"{number} {things[:-1] if number == 1 else things}"


def shown(value: object, *, limit: int = 80) -> str:
    """Gives a short ``repr`` for messages and log lines: one bounded line without control characters. Never raises."""
    try:
        text = _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", ascii(value))
    except Exception:  # a repr may do anything
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[:limit]}…"
