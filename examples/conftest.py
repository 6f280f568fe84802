"""Sets the key that the examples read from the environment, before a test imports them."""

import os

os.environ.setdefault("JWT_KEY", "a key of tests, of more than 32 bytes")
