"""How a manager joins an app: `install`, the middleware, and the checks of a handshake."""
