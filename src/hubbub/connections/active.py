"""The live view behind ``manager.active_connections``. It reads like the list of a hand-written manager.

Operations that give the same answer as on a list work. Lookups by user or room, as in a dict, and all changes raise an
error that names the line to write instead. A different answer, or False, would break the app silently.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn

from starlette.websockets import WebSocket

from ..errors import NotSupported, counted, shown
from ..names import is_name
from .connection import Connection
from .lookup import Lookup

_BY_USER = (
    "`manager.connections(user=user_id)` lists the connections of a user, `manager.connections(room=room)` those of a "
    "room"
)
_ITERATE = "iterate over `manager.active_connections`: a connection has its `user_id` and its `rooms`"
_ADD = "`await manager.connect(websocket, user_id)` adds a connection"
_REMOVE = (
    "`manager.disconnect(websocket)` removes a connection, `await manager.disconnect_user(user_id)` closes all "
    "connections of a user"
)
_LIST = "`list(manager.active_connections)` is a list"
_SET = "`set(manager.active_connections)` is a set"

INSTEAD: Final[Mapping[str, str]] = {
    "get": _BY_USER,
    **dict.fromkeys(("items", "keys", "values"), _ITERATE),
    **dict.fromkeys(("append", "extend", "insert", "add", "update", "setdefault", "fromkeys"), _ADD),
    **dict.fromkeys(("remove", "discard", "pop", "popitem", "clear"), _REMOVE),
    **dict.fromkeys(("difference_update", "intersection_update", "symmetric_difference_update"), _REMOVE),
    **dict.fromkeys(("index", "count", "sort", "reverse"), _LIST),
    **dict.fromkeys(("difference", "intersection", "symmetric_difference", "union"), _SET),
    **dict.fromkeys(("isdisjoint", "issubset", "issuperset"), _SET),
}
"""For each method of list, dict or set that the view lacks: the line to write instead."""


class Active(Collection[Connection]):
    """A live view of the open connections of this process.

    ``len``, ``bool``, iteration, ``in`` with a WebSocket or a `Connection`, slices, ``copy()``, ``reversed`` and ``==``
    work as on a list. Every other method and operator of list, dict and set raises `NotSupported`, and the error says
    what to write instead.
    """

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def __len__(self) -> int:
        return len(self._lookup.registry)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._lookup.registry)

    def __reversed__(self) -> Iterator[Connection]:
        return reversed(self.copy())

    def __contains__(self, item: object) -> bool:
        if isinstance(item, (WebSocket, Connection)):
            return self._lookup.find(item) is not None
        if is_name(item):
            raise NotSupported(
                f"{shown(item)} in active_connections: it holds connections, not ids; "
                "`await manager.is_online(user_id)` says whether a user is connected anywhere, "
                "`room in manager.rooms` says whether a room has members here; " + _BY_USER
            )
        raise NotSupported(f"{shown(item)} in active_connections: `in` takes a WebSocket or a Connection")

    def __getitem__(self, part: slice) -> list[Connection]:
        if isinstance(part, slice):
            return self.copy()[part]
        raise NotSupported(
            f"active_connections[{shown(part)}]: an index and a user id look the same here; {_BY_USER}; "
            f"to look up by index, {_LIST}"
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Active):
            return other._lookup is self._lookup
        if isinstance(other, list):
            return self.copy() == other
        if isinstance(other, Set):
            return set(self) == other
        if isinstance(other, Mapping) and other:
            raise NotSupported(f"active_connections == {shown(other)}: it is not a dict; {_ITERATE}")
        return not self if isinstance(other, Mapping) else NotImplemented

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # lists are not hashable either

    def copy(self) -> list[Connection]:
        """Returns a list of the connections that are open now."""
        return list(self._lookup.registry)

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'active connections')}>"

    if not TYPE_CHECKING:

        def __setitem__(self, key: object, value: object) -> NoReturn:
            raise NotSupported(f"active_connections[{shown(key)}] = ...: {_ADD}")

        def __delitem__(self, key: object) -> NoReturn:
            raise NotSupported(f"del active_connections[{shown(key)}]: {_REMOVE}")

        def _combined(self, other: object) -> NoReturn:
            raise NotSupported(f"active_connections has no operator except ==: {_LIST}, and {_SET}")

        __add__ = __radd__ = __mul__ = __rmul__ = _combined
        __or__ = __ror__ = __and__ = __rand__ = __sub__ = __rsub__ = __xor__ = __rxor__ = _combined
        __lt__ = __le__ = __gt__ = __ge__ = _combined

        def __getattr__(self, name: str) -> NoReturn:
            instead = INSTEAD.get(name)
            if instead is not None:
                raise NotSupported(f"active_connections has no {name}(): {instead}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
