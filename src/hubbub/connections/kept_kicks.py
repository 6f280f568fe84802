"""Keeps instructions to disconnect users while clients are being authenticated.

Theory of operation. An app looks up the user of a client in its handshake, in dependencies of the route, or, at an
endpoint, when the client's first command arrives. That may take long, and an instruction to disconnect the user may
arrive before the user is known. So instructions are kept as long as any client waits for an answer since before they
were given. The client's connection is compared with them once its user is known.

A handler that lets the newest tab replace the others disconnects its own user before it connects. It does not mean its
own client, so the client counts as one that came after that.
"""

from __future__ import annotations

import asyncio
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
    """

    __slots__ = ("began_at", "socket")

    def __init__(self, socket: Socket, began_at: float) -> None:
        self.socket: Socket | None = socket
        self.began_at: float = began_at


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
        """Records that a client is in its handshake, until the app accepts it, or `end`. Its handler calls it."""
        self._handshakes[socket] = handshake = _Handshake(socket, asyncio.get_running_loop().time())
        _own.set(handshake)

    def begin_again(self) -> None:
        """Lets the handshake whose handler calls it, if one does, begin now: after the instructions that it gave."""
        own = _own.get()
        socket = None if own is None else own.socket
        handshake = None if socket is None else self._handshakes.pop(socket, None)
        if socket is not None and handshake is not None:
            handshake.began_at = nextafter(asyncio.get_running_loop().time(), inf)  # clocks may be coarse
            self._handshakes[socket] = handshake  # as the latest

    def begin(self, socket: Socket) -> None:
        """Records that the user of an accepted client is looked up, until `end`."""
        self._authenticating[socket] = asyncio.get_running_loop().time()

    def end(self, socket: Socket) -> None:
        """Records that a client has its answer, or is gone. Idempotent."""
        self._end_handshake(socket)
        self._authenticating.pop(socket, None)
        if self._kicks:
            self._forget_old()

    def began_at(self, socket: Socket) -> float | None:
        """Returns since when a client waits, on the loop's clock; None if it does not."""
        if socket in self._authenticating:
            return self._authenticating[socket]
        handshake = self._handshakes.get(socket)
        return None if handshake is None or socket.accepted else handshake.began_at

    def keep(self, user: str | None, kick: Kick, given_at: float) -> None:
        """Keeps an instruction if any client waits.

        Args:
            user: The id of the user; None for all users.
            kick: The instruction.
            given_at: When it was given, on the loop's clock.
        """
        # An app that accepts a client before it knows the user can't be told from one that never asks for a user.
        for socket in [each for each in self._handshakes if each.accepted]:
            self._end_handshake(socket)
        if self._handshakes or self._authenticating:
            self._kicks.pop(user, None)  # so that the latest is last
            self._kicks[user] = given_at, kick
        self._forget_old()

    def given_since(self, user: str | None, began_at: float) -> Kick | None:
        """Returns the instruction for a user that was given since a time on the loop's clock, if there was one."""
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
