"""Passes messages and announcements from the broker to the members on this worker.

Theory of operation. Messages and announcements go to the fan-out, which writes them to the live members at the end of
the pass. A member that catches up reads the messages from the history, and is written only what is not in there. A
change of a room's numbering has no frame of its own: a client that subscribes to rooms itself is told by its handler.
The app is told of a gap that raw members have.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from ..brokers.base import Delivery, Receiver
from ..connections.session import Session
from ..envelope import Announcement, Envelope, Relabel, Reset
from ..positions import Position
from .audience import Outgoing
from .catch_up import Recovery, tell_renumbered
from .fanout import Fanout
from .memberships import Memberships
from .room import Room


class Deliveries(Receiver):
    """Receives from the broker for the rooms of this worker.

    Args:
        memberships: The rooms of this worker.
        fanout: Writes to the members.
        recovery: Continues catch-ups.
        report_gap: Reports that raw members of a room with history lack messages.
        answers: Answer the requests of other workers, by the first byte of a request. They are given the rest.
    """

    def __init__(
        self,
        memberships: Memberships,
        fanout: Fanout,
        recovery: Recovery,
        report_gap: Callable[[str], None],
        answers: Mapping[bytes, Callable[[bytes], Awaitable[bytes]]] = MappingProxyType({}),
    ) -> None:
        self._answers = answers
        self._memberships = memberships
        self._rooms = memberships.rooms
        self._fanout = fanout
        self._recovery = recovery
        self._report_gap = report_gap
        self._latest = ""  # the room that was written to last, by its channel: a room ends with its last member

    def deliver(self, channel: str, delivery: Delivery) -> None:
        """Handles a delivery of the broker. The fan-out writes a message at the end of the pass."""
        if isinstance(delivery, Envelope):  # first: nearly all are
            self._write(channel, delivery, delivery.position)
        elif isinstance(delivery, Announcement):
            self._write(channel, delivery, None)
        elif isinstance(delivery, Reset | Relabel):
            room = self._rooms.get(channel)
            if room is not None:
                self._renumber(room, delivery)
        else:
            self._memberships.obey(channel, delivery)

    def _write(self, channel: str, event: Envelope | Announcement, position: Position | None) -> None:
        """Gives a message or an announcement to the members of a room here, if there is one."""
        room = self._rooms.get(channel)
        if room is None:
            return
        outgoing = Outgoing(room, event)
        if position is not None:
            room.advance(position)
        elif room.catching_up:
            # It is not in the history, so a replay does not include it.
            for catch_up in tuple(room.catching_up.values()):  # a write may find that the client is gone
                data = outgoing.frame_for(catch_up.member) if catch_up.answered else b""
                if data:
                    catch_up.member.writer.write(data, room, outgoing.key)
        if room.members:
            self._fanout.add(room, outgoing)
            self._latest = channel

    async def settled(self) -> None:
        """Waits while too much is pending: messages of other workers are paced like those that are published here."""
        if self._fanout.crowded and (room := self._rooms.get(self._latest)) is not None:
            await self._fanout.pace(room)

    async def answer(self, payload: bytes) -> bytes:
        """Answers a request of another worker."""
        answer = self._answers.get(payload[:1])
        if answer is None:
            raise NotImplementedError("a request of a kind that this release does not know")
        return await answer(payload[1:])

    def _renumber(self, room: Room, event: Reset | Relabel) -> None:
        """Continues in another epoch, or after a gap, and tells the members.

        Members that catch up are not told here: the history shows whether anything is missing for them.
        """
        self._recovery.forget(room)
        for catch_up in room.change_epoch(event.position):
            member = catch_up.member
            assert isinstance(member, Session)
            self._recovery.continue_catch_up(member, room, catch_up)
        if isinstance(event, Reset):
            self._lose_place(room)
        else:
            self._relabel(room, event.position)

    def _lose_place(self, room: Room) -> None:
        """Tells the live members of a room that messages are lost; those on raw sockets through the app."""
        any_raw = False
        for each in tuple(room.members.values()):
            assert isinstance(each, Session)
            if each.listener is None:
                any_raw = True
            else:
                each.listener.lost_place(room.channel)
        if any_raw:
            self._report_gap(room.channel)

    def _relabel(self, room: Room, position: Position) -> None:
        """Tells the live members of a room its new epoch. To raw ones, that is nothing."""
        for each in tuple(room.members.values()):
            assert isinstance(each, Session)
            if each.listener is not None:
                self._fanout.flush_room(room, each)
                tell_renumbered(each, room, position)
