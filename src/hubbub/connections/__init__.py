"""One client: its socket, what waits for it, what it sends, and when it ends."""
