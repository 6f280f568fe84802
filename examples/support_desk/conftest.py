"""Sets what the desk reads from the environment, before a test imports it."""

import os

os.environ.setdefault("JWT_KEY", "a key of tests, of more than 32 bytes")
os.environ["BROKER"] = "memory://"  # not the Redis of an app that runs
