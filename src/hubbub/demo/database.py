"""The demo's SQLite database: in memory for one process, or the file ``HUBBUB_DEMO_DATABASE``, shared by several."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

_TABLES = """
    PRAGMA journal_mode = wal;
    PRAGMA synchronous = off;
    CREATE TABLE IF NOT EXISTS posts (id INTEGER PRIMARY KEY, post TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS first_likes (post_id INTEGER, user_id TEXT, PRIMARY KEY (post_id, user_id));
    CREATE TABLE IF NOT EXISTS notifications (
        number INTEGER PRIMARY KEY,
        user_id TEXT NOT NULL,
        item TEXT NOT NULL,
        unread INTEGER NOT NULL DEFAULT 1
    );
    CREATE INDEX IF NOT EXISTS notifications_of ON notifications (user_id, number);
"""


class Database:
    """One connection, which threads use in turn.

    Args:
        path: The file, or ":memory:".
    """

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        self._connection.executescript(_TABLES)
        self._lock = Lock()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Runs a transaction. No other thread or process writes meanwhile, and an exception rolls it back."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


@cache
def database() -> Database:
    """Returns the database of this process."""
    return Database(os.environ.get("HUBBUB_DEMO_DATABASE") or ":memory:")
