"""Authentication by tokens, in HTTP requests and WebSocket handshakes. The origin is checked by `hubbub.origin`."""

from .jwt import Claims, InvalidToken, JWTAuth, KeyUnavailable

__all__ = ["Claims", "InvalidToken", "JWTAuth", "KeyUnavailable"]
