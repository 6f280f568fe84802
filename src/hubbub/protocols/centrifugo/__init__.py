"""The Centrifugo client protocol, which its official SDKs in seven languages speak.

`messages` declares the messages, `json` and `protobuf` encode them, `codes` lists the codes of errors and closes, and
`protocol` makes the frames of rooms. `json_client` is the client's side, for tests of endpoints. All of it is pure.
Permissions are the endpoint's.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from ...errors import InvalidArgument
from .encoding import MAX_COMMANDS, BadRequest, Encoding
from .json import JsonEncoding
from .protocol import CentrifugoProtocol

__all__ = ["CENTRIFUGO_JSON", "MAX_COMMANDS", "BadRequest", "CentrifugoProtocol", "Encoding", "centrifugo_protobuf"]

CENTRIFUGO_JSON: Final = CentrifugoProtocol(JsonEncoding())
"""The protocol in JSON."""


@cache
def centrifugo_protobuf() -> CentrifugoProtocol:
    """Returns the protocol in Protobuf. It is always the same object, made on the first call.

    Raises:
        InvalidArgument: protobuf is not installed.
    """
    try:
        from .protobuf import ProtobufEncoding
    except ModuleNotFoundError:
        raise InvalidArgument(
            "subprotocol",
            "the client speaks Protobuf, and protobuf is not installed",
            "clients that speak JSON; or pip install 'hubbub[protobuf]'",
        ) from None
    return CentrifugoProtocol(ProtobufEncoding())
