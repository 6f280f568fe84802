"""Decides which web pages may open a WebSocket. Pure.

A browser lets any page open a WebSocket to any server, and sends the server's cookies along. Neither the same-origin
policy nor CORS applies. But the browser also sends the ``Origin`` header (RFC 6454), which a page can't forge, so the
server can check it. By default a page may connect only to the host that it came from.

Origin and Host are compared by host and port, but not by scheme, because a server behind a proxy that terminates TLS
does not know its own scheme.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .errors import InvalidArgument, shown

_ACCEPTED = (
    "'https://app.example', 'https://app.example:8443', 'https://*.app.example' (its subdomains), 'file://' and other "
    "schemes of apps, 'null', or '*' (every page of the web)"
)
_HOST = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+"
_ORIGIN = re.compile(rf"([A-Za-z][A-Za-z0-9+.-]*)://(?:({_HOST})(?::([0-9]{{1,5}}))?)?")
_AUTHORITY = re.compile(rf"({_HOST})(?::([0-9]{{1,5}}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SPECIAL = frozenset((*_DEFAULT_PORTS, "ws", "wss", "ftp"))  # schemes that need a host: WHATWG URL section 3.1
_MAX_SHOWN = 300  # a host has at most 253 characters


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int | None


class OriginPolicy:
    """Accepts or refuses a handshake by its ``Origin`` and ``Host`` headers.

    - The origin of the host that the handshake was sent to is accepted. A default port is the same as none.
    - A handshake without an Origin header is accepted, because it does not come from a browser.
    - ``null`` (a sandboxed frame, a file) is accepted if it is listed.
    - Another origin is accepted if it is listed.
    - A value that is not an origin, and more than one Origin header, are refused.

    Args:
        allowed: Origins to accept besides the server's own: ``"https://app.example"``, ``"https://app.example:8443"``,
            ``"https://*.app.example"`` (every subdomain, but not ``app.example`` itself), ``"null"``, or ``"*"`` for
            all. Apps in a web view have schemes of their own: ``"file://"``, ``"capacitor://localhost"``. Write names
            that are not ASCII as browsers send them, ``xn--…``.

    Raises:
        InvalidArgument: An entry is none of these.
    """

    __slots__ = ("_any", "_null", "_origins", "_wildcards")

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        if isinstance(allowed, (str, bytes)) or not isinstance(allowed, Iterable):
            raise InvalidArgument("allowed_origins", f"got {shown(allowed)}, not a list", f"a list of {_ACCEPTED}")
        self._any = False
        self._null = False
        self._origins: set[_Origin] = set()
        self._wildcards: set[_Origin] = set()
        for entry in allowed:
            self._add(entry)

    def _add(self, entry: object) -> None:
        if entry == "*":
            self._any = True
        elif entry == "null":
            self._null = True
        elif isinstance(entry, str) and (origin := _parse(entry)) is not None:
            self._origins.add(origin)
        elif (
            isinstance(entry, str)
            and "://*." in entry
            and (base := _parse(entry.replace("*.", "", 1))) is not None
            and base.host
        ):
            self._wildcards.add(base._replace(host=f".{base.host}"))
        else:
            raise InvalidArgument("allowed_origins", _problem(entry), _ACCEPTED)

    def __repr__(self) -> str:
        listed = len(self._origins) + len(self._wildcards) + self._null
        return f"OriginPolicy({'any origin' if self._any else f'same origin and {listed} more'})"

    def refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Checks a handshake. Never raises.

        Args:
            headers: The headers, as in an ASGI scope.

        Returns:
            None if the handshake is accepted, otherwise one line for the log that says what to do.
        """
        origins: list[str] = []
        hosts: list[str] = []
        for name, value in headers:
            lowered = name.lower()
            if lowered == b"origin":
                origins.append(value.decode("latin-1").strip())
            elif lowered == b"host":
                hosts.append(value.decode("latin-1").strip())
        if not origins:
            return None
        if len(origins) > 1:
            return f"the handshake has {len(origins)} Origin headers, and a browser sends one"
        host = hosts[0] if len(hosts) == 1 else None
        return None if self._admits(origins[0], host) else self.explain(origins[0], host)

    def _admits(self, value: str, host: str | None) -> bool:
        if self._any:
            return True
        if value == "null":
            return self._null
        origin = _parse(value)
        if origin is None:
            return False
        return (
            origin in self._origins
            or _is_host(origin, host)
            or any(_is_below(origin, wildcard) for wildcard in self._wildcards)
        )

    def explain(self, origin: str, host: str | None) -> str:
        """Returns the log line about a refused origin: escaped, bounded, and with the setting that would accept it.

        Args:
            origin: The Origin header.
            host: The Host header; None if there is none, or more than one.
        """
        name = shown(origin, limit=_MAX_SHOWN)
        parsed = _parse(origin)
        if origin != "null" and parsed is None:
            return f"origin {name} is not what a browser sends"
        if parsed is None:
            problem = f"origin {name} is that of a sandboxed frame or a local file"
        elif parsed.scheme == "file":
            problem = f"origin {name} is that of a local file or a desktop app's web view"
        elif parsed.scheme not in _DEFAULT_PORTS:
            problem = f"origin {name} is that of an app or a browser extension"
        elif host is None:
            problem = f"origin {name} can't be compared with the host, because there is not exactly one Host header"
        else:
            problem = f"origin {name} is not the host it was sent to ({shown(host, limit=_MAX_SHOWN)})"
        if len(origin) > _MAX_SHOWN:
            return problem
        return f'{problem}; if it is yours: ConnectionManager(allowed_origins=["{origin}"])'


def _parse(value: str) -> _Origin | None:
    match = _ORIGIN.fullmatch(value)
    if match is None:
        return None
    scheme, host = match[1].lower(), (match[2] or "").lower()
    if not host and scheme in _SPECIAL:
        return None
    port = int(match[3]) if match[3] else _DEFAULT_PORTS.get(scheme)
    return _Origin(scheme, host, port) if port is None or port <= 65535 else None


def _is_host(origin: _Origin, value: str | None) -> bool:
    default = _DEFAULT_PORTS.get(origin.scheme)
    match = None if value is None else _AUTHORITY.fullmatch(value)
    if match is None or default is None:  # capacitor://localhost is an app, not a page of a server on localhost
        return False
    return origin.host == match[1].lower() and origin.port == (int(match[2]) if match[2] else default)


def _is_below(origin: _Origin, wildcard: _Origin) -> bool:
    return (
        origin.scheme == wildcard.scheme
        and origin.port == wildcard.port
        and origin.host.endswith(wildcard.host)
        and not origin.host.startswith(".")
    )


def _problem(entry: object) -> str:
    name = shown(entry, limit=_MAX_SHOWN)
    if not isinstance(entry, str):
        return f"got {name}"
    _, separator, rest = entry.partition("://")
    if not separator:
        return f"{name} has no scheme"
    if rest.endswith("/") and "/" not in rest[:-1]:
        return f"{name} ends with a slash"
    if "/" in rest or "?" in rest or "#" in rest:
        return f"{name} has a path"
    if not entry.isascii():
        return f"{name} is not ASCII; browsers send such a name as xn--…"
    if "*" in rest:
        return f"{name} has a '*' that does not stand for subdomains"
    return f"{name} is not an origin"
