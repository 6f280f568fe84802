"""Authentication by tokens, in HTTP requests and WebSocket handshakes. The origin is checked by `hubbub.origin`."""

from ..claims import Claims, InvalidToken, KeyUnavailable
from .jwt import JWTAuth

__all__ = ["Claims", "InvalidToken", "JWTAuth", "KeyUnavailable"]
