"""The commands by which messages get to Redis: the same from workers and publishers. Pure."""

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
from .scripts import CONNECTED, INSTRUCT, LINE, PUBLISH

Argument: TypeAlias = str | bytes | int

_DEFAULTS: Final = {"prefix": "hubbub", "lease_s": 15.0, "timeout_s": 5.0, "when_away": "raise"}

_NOT_YOURS: Final = {"decode_responses", "protocol"}
_MOST_S: Final = {"timeout_s": 60.0}
"""The server knows the sender of a message, and its number, for two minutes at least."""

MAX_INSTRUCTIONS: Final = 10_000
INSTRUCTIONS_KEPT_S: Final = 24 * 3600
"""Number of instructions kept for workers that are cut off, and seconds that they are kept after the last one."""

IDLE_S: Final = 20.0
"""Seconds after which an idle connection is replaced before use, because a firewall may have dropped it silently."""

IDLE_TTL_S: Final = 300.0
"""How long the numbering of a room without history outlives its last use."""


SENDER_TTL_S: Final = 3600.0
"""Lifetime at Redis of a sender that publishes nothing. A `Publisher` opens a new line before that."""


class Command(NamedTuple):
    """A command to send.

    Attributes:
        arguments: The command and its arguments; those of a message with a number lack the two of `in_line`.
        number: That of a message which is a part of its sender's line; 0 for any other.
    """

    arguments: list[Argument]
    number: int = 0

    def in_line(self, line: int, before: int) -> list[Argument]:
        """The arguments, as they are sent in a line after a number."""
        return [*self.arguments, line, before] if self.number else self.arguments


def publishing(
    keys: Keys,
    sender: Sender,
    channel: str,
    envelope: Envelope,
    options: RoomOptions,
    sender_ttl_s: float = SENDER_TTL_S,
) -> Command:
    """Publishes a message. The answer is its position, where the room has positions (`position_in`)."""
    stamp = sender.stamp(scripted=options.numbered)
    name, message = keys.channel(channel), pack(envelope, stamp)
    if not options.numbered:
        return Command(["PUBLISH", name, message])
    places = keys.head(channel), keys.log(channel), keys.sender(stamp.sender)
    size = options.kept.size if options.kept else 0
    arguments = (name, message, stamp.number, new_epoch(), ttl_ms(options), size, int(sender_ttl_s * 1000))
    return Command(["EVALSHA", PUBLISH.sha, len(places), *places, *arguments], stamp.number)


def lining_up(keys: Keys, sender: bytes, line: int, sender_ttl_s: float = SENDER_TTL_S) -> list[Argument]:
    """Begins a line of a sender: what it sent in an earlier one, and comes late, is not taken any more."""
    return ["EVALSHA", LINE.sha, 1, keys.sender(sender), line, int(sender_ttl_s * 1000)]


def out_of_line(error: Exception) -> bool:
    """Whether a message was not taken because one before it did not come: all are to be sent again, in a new line."""
    return str(error).startswith("LINE ")


def instructing(keys: Keys, channel: str, instruction: Instruction) -> list[Argument]:
    """Gives an instruction to all workers, those that are cut off included."""
    places = keys.instructions, keys.forgotten
    packed = pack_instruction(channel, instruction)
    arguments = keys.all_workers, packed, MAX_INSTRUCTIONS, INSTRUCTIONS_KEPT_S * 1000
    return ["EVALSHA", INSTRUCT.sha, len(places), *places, *arguments]


def finding(keys: Keys, channel: str, user: str) -> list[Argument]:
    """Asks whether a user has a live connection in a room: 1 or 0.

    Subscriptions don't tell: that of a machine that is gone lasts for minutes.
    """
    return ["EVALSHA", CONNECTED.sha, 1, keys.here(channel), user, keys.lease("")]


def position_in(answer: Any) -> Position:
    """The position that a script gives first."""
    return Position(answer[0].decode(), answer[1])


def said(error: BaseException) -> str:
    """What an error of redis-py says, in a line: its repr says less than its text."""
    return shown(str(error) or type(error).__name__, limit=200)


def ttl_ms(options: RoomOptions) -> int:
    """How long what a room keeps is kept."""
    return int((options.kept.ttl_s if options.kept else IDLE_TTL_S) * 1000)


def refused_url(error: Exception) -> InvalidArgument:
    """What to say of a URL that redis-py does not take."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown is not None:
        known = ", ".join(_DEFAULTS)
        return InvalidArgument("url", f"the option {unknown[1]}", f"{known}, and what redis-py's connections take")
    return InvalidArgument("url", f"not a URL of Redis: {error}", "redis://host:6379/0")


def settings_in(url: object, **given: Any) -> tuple[str, dict[str, Any]]:
    """Takes settings of ours out of the query of a URL.

    Args:
        url: The URL.
        given: What holds where the query does not say otherwise, by name. The defaults hold for the rest.

    Returns:
        The URL of the server alone, and the settings, those included that only workers use: an app has one URL.

    Raises:
        InvalidArgument: The URL is none, or a setting is not acceptable.
    """
    if not isinstance(url, str):
        raise InvalidArgument("url", f"got {shown(url)}", "redis://host:6379/0")
    settings, others = {**_DEFAULTS, **given}, []
    parts = _split(url)
    if parts is not None and parts.scheme not in {"redis", "rediss", "unix"}:
        raise InvalidArgument("url", f"the scheme {shown(parts.scheme)}", "redis://, rediss:// or unix://")
    if parts is None:  # nothing of it is shown: it may be a part of the password
        raise InvalidArgument(
            "url",
            "what follows the host is no port and no number of a database, or there is a '#'",
            "redis://user:password@host:6379/0, with what is special in the password quoted: %23 for #, %2F for /",
        )
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in settings:
            settings[name] = value
        elif name in _NOT_YOURS:
            raise InvalidArgument("url", f"the option {name}", "one that leaves it to hubbub how answers are read")
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
        server = server.replace("unix:", "unix://", 1)  # which urlunsplit leaves out, and redis-py looks for
    return server, settings


def database_in(url: str) -> int:
    """The number of the database that the URL of a server names: in its query, or else in its path, as redis-py has it.

    Raises:
        InvalidArgument: It is no number.
    """
    parts = urlsplit(url)
    in_path = "" if parts.scheme == "unix" else parts.path[1:]
    number = parse_qs(parts.query).get("db", [in_path])[0] or "0"
    if not number.isdecimal():
        raise InvalidArgument("url", f"the database {shown(number)}", "the number of a database, from 0")
    return int(number)


def _split(url: str) -> SplitResult | None:
    """The parts of a URL, where it is one, and nothing in it is where it does not belong."""
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
        raise InvalidArgument(name, f"got {shown(value)}", "seconds, over 0" + (f" to {most:g}" if most < inf else ""))
    return seconds
