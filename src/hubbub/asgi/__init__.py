"""Adds a manager to an ASGI app: `install`, the middleware, and the redaction of the server's log."""
