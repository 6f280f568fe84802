"""Builds the commands that workers and publishers send to Redis, and parses the settings in a Redis URL. Pure."""

from __future__ import annotations

import re
from math import inf
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import SplitResult, parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit

from ...envelope import Envelope, Instruction
from ...errors import InvalidArgument, shown
from ...options import RoomOptions
from ...positions import Position, new_epoch
from .channel import Keys, Sender, pack, pack_instruction
from .scripts import CONNECTED, INSTRUCT, LINE, ONCE, PUBLISH

Argument: TypeAlias = str | bytes | int

_DEFAULTS: Final = {"prefix": "hubbub", "lease_s": 15.0, "timeout_s": 5.0, "when_away": "raise"}

_SET_BY_HUBBUB: Final = {"decode_responses", "protocol"}
_MOST_S: Final = {"timeout_s": 60.0}
"""Maximum of each setting. The server recognizes a repeated message for at least two minutes, so calls end earlier."""

MAX_INSTRUCTIONS: Final = 10_000
INSTRUCTIONS_KEPT_S: Final = 24 * 3600
"""Number of instructions kept for workers that are cut off, and seconds for which they are kept after the newest."""

IDLE_S: Final = 20.0
"""Seconds after which an idle connection is replaced before use, because a firewall may have dropped it silently."""

SENDER_TTL_S: Final = 3600.0
"""Seconds after which Redis forgets a sender that publishes nothing."""


class Command(NamedTuple):
    """A command to send.

    Attributes:
        arguments: The command and its arguments. For a numbered message, `in_line` adds the last two.
        number: The sequence number of a message in its sender's line; 0 for any other command.
    """

    arguments: list[Argument]
    number: int = 0

    def in_line(self, line: int, before: int) -> list[Argument]:
        """Returns the arguments to send in a line, after the message with the number ``before``."""
        return [*self.arguments, line, before] if self.number else self.arguments


def publishing(
    keys: Keys,
    sender: Sender,
    channel: str,
    envelope: Envelope,
    options: RoomOptions,
    sender_ttl_s: float = SENDER_TTL_S,
    once: str | None = None,
) -> Command:
    """Builds the command that publishes a message. If the room has positions, `position_in` reads the answer."""
    kept, name = options.kept, keys.channel(channel)
    if kept is None and once is not None:
        message = pack(envelope, sender.stamp_once())
        return Command(["EVALSHA", ONCE.sha, 1, keys.once(channel, once), name, message])
    stamp = sender.stamp(scripted=kept is not None)
    message = pack(envelope, stamp)
    if kept is None:
        return Command(["PUBLISH", name, message])
    places = [keys.head(channel), keys.log(channel), keys.sender(stamp.sender)]
    if once is not None:
        places.append(keys.once(channel, once))
    arguments = (name, message, stamp.number, new_epoch(), ttl_ms(options), kept.size, int(sender_ttl_s * 1000))
    return Command(["EVALSHA", PUBLISH.sha, len(places), *places, *arguments], stamp.number)


def lining_up(keys: Keys, sender: bytes, line: int, sender_ttl_s: float = SENDER_TTL_S) -> list[Argument]:
    """Builds the command that begins a new line of a sender. Redis then refuses late messages of earlier lines."""
    return ["EVALSHA", LINE.sha, 1, keys.sender(sender), line, int(sender_ttl_s * 1000)]


def out_of_line(error: Exception) -> bool:
    """Returns whether Redis refused a message because an earlier one is missing. The caller resends in a new line."""
    return str(error).startswith("LINE ")


def instructing(keys: Keys, channel: str, instruction: Instruction) -> list[Argument]:
    """Builds the command that sends an instruction to all workers, including those that are cut off."""
    places = keys.instructions, keys.forgotten
    packed = pack_instruction(channel, instruction)
    arguments = keys.all_workers, packed, MAX_INSTRUCTIONS, INSTRUCTIONS_KEPT_S * 1000
    return ["EVALSHA", INSTRUCT.sha, len(places), *places, *arguments]


def finding(keys: Keys, channel: str, user: str) -> list[Argument]:
    """Builds the command that asks whether a user has a live connection in a room. The answer is 1 or 0.

    Subscriptions can't answer this: Redis keeps the subscription of a machine that is gone for minutes.
    """
    return ["EVALSHA", CONNECTED.sha, 1, keys.here(channel), user, keys.lease("")]


def position_in(answer: Any) -> Position:
    """Returns the position that an answer of a script begins with."""
    return Position(answer[0].decode(), answer[1])


def error_text(error: BaseException) -> str:
    """Returns the text of an error of redis-py, on one line. Its repr would say less."""
    return shown(str(error) or type(error).__name__, limit=200)


def ttl_ms(options: RoomOptions) -> int:
    """Returns the lifetime of the messages and the numbering of a room with history, in milliseconds."""
    assert options.kept is not None
    return int(options.kept.ttl_s * 1000)


def refused_url(error: Exception) -> InvalidArgument:
    """Returns the error for a URL that redis-py rejects."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown is not None:
        known = ", ".join(_DEFAULTS)
        return InvalidArgument("url", f"the option {unknown[1]}", f"{known}, and the options of redis-py's connections")
    return InvalidArgument("url", f"not a Redis URL: {error}", "redis://host:6379/0")


def settings_in(url: object, **given: Any) -> tuple[str, dict[str, Any]]:
    """Splits a URL into the URL of the server and the settings of hubbub in its query.

    Args:
        url: The URL.
        given: Settings by name, for those that the query does not contain. The others have defaults.

    Returns:
        The URL of the server alone, and all settings. An app has one URL for workers and publishers, so these include
        settings that only workers use.

    Raises:
        InvalidArgument: The URL is malformed, or a setting is not acceptable.
    """
    if not isinstance(url, str):
        raise InvalidArgument("url", f"got {shown(url)}", "redis://host:6379/0")
    settings, others = {**_DEFAULTS, **given}, []
    parts = _split(url)
    if parts is not None and parts.scheme not in {"redis", "rediss", "unix"}:
        raise InvalidArgument("url", f"the scheme {shown(parts.scheme)}", "redis://, rediss:// or unix://")
    if parts is None:  # the error shows no part of the URL: it may be a part of the password
        raise InvalidArgument(
            "url",
            "after the host is something other than a port and a database number, or the URL contains a '#'",
            "redis://user:password@host:6379/0, with special characters in the password quoted: %23 for #, %2F for /",
        )
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in settings:
            settings[name] = value
        elif name in _SET_BY_HUBBUB:
            raise InvalidArgument("url", f"the option {name}", "a URL without it: hubbub sets this option itself")
        else:
            others.append((name, value))
    for name, value in settings.items():
        if name.endswith("_s"):
            settings[name] = _seconds(name, value)
    prefix = settings["prefix"]
    if not isinstance(prefix, str) or not prefix or "{" in prefix:
        raise InvalidArgument("prefix", f"got {shown(prefix)}", "a str without '{'")
    server = urlunsplit(parts._replace(query=urlencode(others)))
    if parts.scheme == "unix" and not server.startswith("unix://"):
        server = server.replace("unix:", "unix://", 1)  # urlunsplit drops the slashes, and redis-py requires them
    return server, settings


def database_in(url: str) -> int:
    """Returns the database number in the URL of a server: from its query, or else from its path, as redis-py does.

    Raises:
        InvalidArgument: The database is not a number.
    """
    parts = urlsplit(url)
    in_path = "" if parts.scheme == "unix" else parts.path[1:]
    number = parse_qs(parts.query).get("db", [in_path])[0] or "0"
    if not number.isdecimal():
        raise InvalidArgument("url", f"the database {shown(number)}", "a database number, 0 or greater")
    return int(number)


def _split(url: str) -> SplitResult | None:
    """Returns the parts of a URL; None if it is malformed, or a part would be ignored."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  reading it checks it
    except ValueError:
        return None
    remote = parts.scheme in {"redis", "rediss"}
    lost = parts.fragment or (remote and parts.path not in {"", "/"} and not parts.path[1:].isdecimal())
    return None if lost else parts


def _seconds(name: str, value: object) -> float:
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) else 0.0
    except ValueError:
        seconds = 0.0
    most = _MOST_S.get(name, inf)
    if not 0 < seconds < inf or seconds > most:
        at_most = f", at most {most:g}" if most < inf else ""
        raise InvalidArgument(name, f"got {shown(value)}", f"seconds, more than 0{at_most}")
    return seconds
