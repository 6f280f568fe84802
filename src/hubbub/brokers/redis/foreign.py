"""Entries at Redis that this release can't read. They are skipped and counted, with one warning for each kind."""

from __future__ import annotations

import logging
from typing import Final

from ...errors import shown

logger: Final = logging.getLogger("hubbub")


class Foreign:
    """Counts the skipped entries.

    Attributes:
        count: Number of entries that were skipped.
    """

    def __init__(self) -> None:
        self.count: int = 0
        self._warned_of: set[str] = set()

    def skip(self, kind: str, where: object, why: object, *, times: int = 1) -> None:
        """Counts a skipped entry. Logs a warning for the first of each kind.

        Args:
            kind: The kind of entry, with its article: "an entry".
            where: The key or channel.
            why: What is wrong with the entry.
            times: Number of entries.
        """
        self.count += times
        if kind not in self._warned_of:
            self._warned_of.add(kind)
            logger.warning(
                "skipped %s in %s at Redis: it is not of this release of hubbub (%s); others like it are only counted",
                shown(kind),
                shown(where),
                shown(why),
            )
