"""The client's side of the protocol in JSON, for tests of endpoints: writes commands, and reads replies and pushes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...codec import dumps, loads
from .json import built, plain
from .messages import EVENTS, NAMES, RESULTS, Choice, Command, Pong, Push, Reply


def command_text(command: Command) -> str:
    """Writes a command.

    Args:
        command: The command.
    """
    request = command.request
    number = {"id": command.id} if command.id else {}
    content = {} if isinstance(request, Pong) else {NAMES[type(request)]: plain(request)}
    return dumps({**number, **content}).decode()


def replies_in(text: str) -> Iterator[Reply | Push | None]:
    """Reads a message from a server, in order. None stands for a ping.

    Args:
        text: The message: one or more replies, pushes and pings.
    """
    for line in text.split("\n"):
        said = loads(line)
        if not said:
            yield None
        elif "push" in said:
            yield Push(said["push"].get("channel", ""), _content(said["push"], EVENTS))
        else:
            yield Reply(said["id"], _content(said, RESULTS))


def _content(said: Mapping[str, Any], choices: Mapping[str, Choice]) -> Any:
    """Makes the one message that a reply or a push holds."""
    ((name, choice),) = [(name, choices[name]) for name in said if name in choices]
    return built(choice.type, said[name], name)
