"""The examples take the key of their tokens from the environment; tests have one of their own."""

import os

os.environ.setdefault("JWT_KEY", "a key of tests, of more than 32 bytes")
