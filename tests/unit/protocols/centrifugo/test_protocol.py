"""The events of rooms, as clients of the Centrifugo protocol see them, in both encodings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hubbub import Position, RoomOptions
from hubbub.codec import encode
from hubbub.envelope import Announcement, Author, Envelope
from hubbub.names import user_room
from hubbub.protocols import ClientProtocol
from hubbub.protocols.centrifugo import CENTRIFUGO_JSON, CentrifugoProtocol, centrifugo_protobuf
from hubbub.protocols.centrifugo.messages import ClientInfo, Join, Leave, Message, Publication, Push
from hubbub.rooms.room import Room

PLACE = Position("abc-EF_8", 12)
LOBBY = Room("lobby", RoomOptions())
AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(params=["json", "protobuf"])
def protocol(request: pytest.FixtureRequest) -> CentrifugoProtocol:
    return CENTRIFUGO_JSON if request.param == "json" else centrifugo_protobuf()


@pytest.mark.parametrize("message", [{"text": "hi"}, "hi", b"\xff"], ids=["JSON", "text", "bytes"])
def test_a_publication_has_the_room_the_message_and_its_offset(protocol: CentrifugoProtocol, message: Any) -> None:
    payload = encode(message)
    tags = {"encoding": "base64"} if protocol is CENTRIFUGO_JSON and message == b"\xff" else {}
    for position, offset in ((PLACE, 12), (None, 0)):
        push = Push("lobby", Publication(payload, offset=offset, tags=tags))
        data = protocol.publication(LOBBY, Envelope(payload, position=position))
        assert data == protocol.encoding.encode([push])


def test_what_a_client_published_names_it(protocol: CentrifugoProtocol) -> None:
    ada = Author("ada", "c1", b'{"name":"Ada"}', b'{"role":"owner"}')
    info_of_ada = ClientInfo("ada", "c1", encode({"name": "Ada"}), encode({"role": "owner"}))
    for author, info in ((ada, info_of_ada), (Author(None, "c2"), ClientInfo("", "c2"))):
        push = Push("lobby", Publication(encode("hi"), info, 12))
        data = protocol.publication(LOBBY, Envelope(encode("hi"), position=PLACE, author=author))
        assert data == protocol.encoding.encode([push])


def test_a_user_s_own_room_does_not_say_whose_it_is(protocol: CentrifugoProtocol) -> None:
    data = protocol.publication(Room(user_room("ada"), RoomOptions()), Envelope(encode(1)))
    assert data == protocol.encoding.encode([Push("$user", Publication(encode(1)))])


def test_joins_and_leaves_name_the_user_and_one_client(protocol: CentrifugoProtocol) -> None:
    news = Announcement("joined", "ada", "c1", b'{"name":"Ada"}', 3, AT)
    info = ClientInfo("ada", "c1", encode({"name": "Ada"}))
    encoded = protocol.encoding.encode
    assert protocol.announcement(LOBBY, news) == encoded([Push("lobby", Join(info))])
    left = Announcement("left", "ada", "c1", b"null", 2, AT)
    assert protocol.announcement(LOBBY, left) == encoded([Push("lobby", Leave(ClientInfo("ada", "c1")))])
    left = Announcement("left", "ada", "c1", b"null", 2, AT, b'{"role":"owner"}')
    info = ClientInfo("ada", "c1", None, encode({"role": "owner"}))
    assert protocol.announcement(LOBBY, left) == encoded([Push("lobby", Leave(info))])
    anonymous = Announcement("left", None, "c1", b"null", 0, AT)
    assert protocol.announcement(LOBBY, anonymous) == encoded([Push("lobby", Leave(ClientInfo("", "c1")))])


def test_a_message_to_one_connection_is_of_no_room(protocol: CentrifugoProtocol) -> None:
    assert protocol.message(encode([1])) == protocol.encoding.encode([Push("", Message(encode([1])))])


def test_nothing_else_is_said_of_a_room(protocol: ClientProtocol) -> None:
    assert protocol.error("invalid_json", "no") is None
    assert protocol.reply('{"type":"ping"}', None) is None
