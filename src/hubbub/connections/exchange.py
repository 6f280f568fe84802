"""An HTTP request, as the server sees it. A stream of events needs more of it than its route is given."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Final, NamedTuple

from .transports import ServerSend

KEY: Final = "hubbub.exchange"
"""The key of the `Exchange` in an ASGI scope."""


class Exchange(NamedTuple):
    """One HTTP request.

    Attributes:
        managers: The managers of the app.
        scope: The server's own scope, which it logs.
        send: The server's own ``send``, which no other middleware has wrapped.
    """

    managers: Sequence[Any]
    scope: MutableMapping[str, Any]
    send: ServerSend


def keep(managers: Sequence[Any], scope: MutableMapping[str, Any], send: ServerSend) -> None:
    """Stores the server's side of a request in its scope, unless an outer middleware has stored it already.

    Args:
        managers: The managers of the app.
        scope: The ASGI scope.
        send: The ASGI ``send``.
    """
    outer: Exchange | None = scope.get(KEY)
    if outer is None:
        scope[KEY] = Exchange(managers, scope, send)
    elif outer.managers is not managers:  # a mounted app has managers of its own
        scope[KEY] = outer._replace(managers=[*outer.managers, *managers])
