"""Who is it: tokens, in HTTP requests and WebSocket handshakes alike. Which pages may connect is `hubbub.origin`'s."""

from .jwt import Claims, InvalidToken, JWTAuth, KeyUnavailable

__all__ = ["Claims", "InvalidToken", "JWTAuth", "KeyUnavailable"]
