"""Keeps instructions to disconnect users while clients are being authenticated.

Theory of operation. An app looks up the user of a client in its handshake, in dependencies of the route, or, at an
endpoint, when the client's first command arrives. That may take long, and an instruction to disconnect the user may
arrive before the user is known. So instructions are kept as long as any client waits for an answer since before they
were given. The client's connection is compared with them once its user is known.

A handler that lets the newest tab replace the others disconnects its own user before it connects. It does not mean its
own client, so the client is compared with what was given before that, and after.

A handler may accept a client before it knows the user, or never ask for one. So an accepted client counts as one that
waits, but only for a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf, nextafter
from typing import Final

from ..envelope import Kick
from .socket import Socket


class _Handshake:
    """A client in its handshake.

    Attributes:
        socket: The client; None once the handshake has ended. Contexts may live much longer than sockets.
        began_at: When it began, on the loop's clock.
        own: By the users that its handler disconnected, when it last did, and the instruction that was given before.
    """

    __slots__ = ("began_at", "own", "socket")

    def __init__(self, socket: Socket, began_at: float) -> None:
        self.socket: Socket | None = socket
        self.began_at: float = began_at
        self.own: dict[str | None, tuple[float, Kick | None]] | None = None


_ACCEPTED_S: Final = 30.0
"""Seconds from the handshake for which an accepted client counts as one whose user may still be looked up."""

_own: Final[ContextVar[_Handshake | None]] = ContextVar("hubbub_own_handshake", default=None)


class KeptKicks:
    """The instructions that may concern clients whose users are not known yet."""

    def __init__(self) -> None:
        # The sockets that wait for an answer, and since when, the longest first.
        self._handshakes: dict[Socket, _Handshake] = {}
        self._authenticating: dict[Socket, float] = {}
        self._kicks: dict[str | None, tuple[float, Kick]] = {}  # the latest by user, and when it was given

    def __len__(self) -> int:
        return len(self._kicks)

    def begin_handshake(self, socket: Socket) -> None:
        """Records that a client is in its handshake, until `end`. Its handler calls it."""
        self._handshakes[socket] = handshake = _Handshake(socket, asyncio.get_running_loop().time())
        _own.set(handshake)

    @contextmanager
    def own(self, user: str) -> Iterator[None]:
        """Spares the client whose handler disconnects a user in the block, if a handler does, from that instruction."""
        own = _own.get()
        socket = None if own is None else own.socket
        handshake = None if socket is None else self._handshakes.get(socket)
        if socket is None or handshake is None:
            yield
            return
        _, earlier = self.missed(socket, user)
        yield
        spared_until = nextafter(asyncio.get_running_loop().time(), inf)  # clocks may be coarse
        handshake.own = {**(handshake.own or {}), user: (spared_until, earlier)}

    def begin(self, socket: Socket) -> None:
        """Records that the user of an accepted client is looked up, until `end`."""
        self._authenticating[socket] = asyncio.get_running_loop().time()

    def end(self, socket: Socket) -> None:
        """Records that a client has its answer, or is gone. Idempotent."""
        self._end_handshake(socket)
        self._authenticating.pop(socket, None)
        if self._kicks:
            self._forget_old()

    def missed(self, socket: Socket, user: str | None) -> tuple[float, Kick | None]:
        """Returns since when a client waits, on the loop's clock, and the instruction for its user since then."""
        now, handshake = asyncio.get_running_loop().time(), self._handshakes.get(socket)
        began_at = self._authenticating.get(socket)
        if began_at is None:
            began_at = now if handshake is None or _is_past(handshake, now) else handshake.began_at
        if handshake is not None and handshake.own is not None and user in handshake.own:
            spared_until, earlier = handshake.own[user]
            began_at = max(began_at, spared_until)
            if earlier is not None:
                return began_at, earlier
        return began_at, self._given_since(user, began_at)

    def keep(self, user: str | None, kick: Kick, given_at: float) -> None:
        """Keeps an instruction if any client waits.

        Args:
            user: The id of the user; None for all users.
            kick: The instruction.
            given_at: When it was given, on the loop's clock.
        """
        now = asyncio.get_running_loop().time()
        for socket in [each for each, handshake in self._handshakes.items() if _is_past(handshake, now)]:
            self._end_handshake(socket)
        if self._handshakes or self._authenticating:
            self._kicks.pop(user, None)  # so that the latest is last
            self._kicks[user] = given_at, kick
        self._forget_old()

    def _given_since(self, user: str | None, began_at: float) -> Kick | None:
        for each in {user, None}:
            given_at, kick = self._kicks.get(each, (-inf, None))
            if began_at <= given_at:
                return kick
        return None

    def _end_handshake(self, socket: Socket) -> None:
        handshake = self._handshakes.pop(socket, None)
        if handshake is not None:
            handshake.socket = None

    def _forget_old(self) -> None:
        """Forgets the instructions that are older than all waiting clients."""
        handshake = next(iter(self._handshakes.values()), None)
        oldest = min(inf if handshake is None else handshake.began_at, next(iter(self._authenticating.values()), inf))
        while self._kicks:
            user, (given_at, _) = next(iter(self._kicks.items()))
            if given_at >= oldest:
                break
            del self._kicks[user]


def _is_past(handshake: _Handshake, now: float) -> bool:
    """Whether a client was accepted, and long ago."""
    socket = handshake.socket
    return socket is None or (socket.accepted and now - handshake.began_at > _ACCEPTED_S)
