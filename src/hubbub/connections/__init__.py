"""One client: its socket, its outbox, its limits, and its life from handshake to end."""
