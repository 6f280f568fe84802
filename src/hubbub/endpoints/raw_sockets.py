"""WebSockets that handlers of the app serve themselves, as `ConnectionManager.describe` describes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from ..errors import InvalidArgument, shown
from .about import About
from .schemas import Mode, Schema, check_type

NAME_IN_PATH: Final = re.compile(r"\{([A-Za-z_]\w*)(?::(\w+))?\}", re.ASCII)

_CONVERTED: Final[Mapping[str, Schema]] = {
    "int": {"type": "integer", "minimum": 0},
    "float": {"type": "number", "minimum": 0},
    "uuid": {"type": "string", "format": "uuid"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSocket:
    """A WebSocket that a handler of the app serves.

    Attributes:
        path: Its path.
        receives: The type of the messages of clients; None if that is not told.
        sends: The type of the messages to clients; None if that is not told.
        about: Its description.
        endpoint: The path of the endpoint in whose document it appears; None for those that `Documentation` chooses.
    """

    path: str
    receives: Any
    sends: Any
    about: About
    endpoint: str | None = None

    @property
    def name(self) -> str:
        """The description in errors."""
        return f"describe({shown(self.path)})"

    @property
    def sides(self) -> list[tuple[str, Mode, Any]]:
        """For each direction that has a type: the app's action, the mode of the schema, and the type."""
        both: list[tuple[str, Mode, Any]] = [
            ("receive", "validation", self.receives),
            ("send", "serialization", self.sends),
        ]
        return [side for side in both if side[2] is not None]

    @property
    def parameters(self) -> dict[str, Schema]:
        """The schemas of the parameters of the path, by name."""
        found = NAME_IN_PATH.finditer(self.path)
        return {each[1]: dict(_CONVERTED.get(each[2] or "str", {"type": "string"})) for each in found}


def raw_socket(path: str, receives: Any, sends: Any, about: About, endpoint: str | None = None) -> RawSocket:
    """Makes a description.

    Raises:
        InvalidArgument: ``path`` is not a path, or a type is none that Pydantic knows.
    """
    declared = f"describe({shown(path)})"
    accepted = "the path of a WebSocket route, such as '/ws/{room}'"
    if not isinstance(path, str) or not path.startswith("/"):
        raise InvalidArgument(declared, f"the path is {shown(path)}", accepted)
    try:
        WebSocketRoute(path, _never)
    except (AssertionError, ValueError) as error:
        raise InvalidArgument(declared, f"the path is {shown(path)} ({error})", accepted) from None
    for argument, annotation in (("receives", receives), ("sends", sends)):
        if annotation is not None:
            check_type(annotation, declared, argument)
    return RawSocket(path=path, receives=receives, sends=sends, about=about, endpoint=endpoint)


async def _never(websocket: WebSocket) -> None:
    """The handler of a route that only checks its path."""
