"""Entries at Redis that this release can't read. They are skipped, counted, and warned of once."""

from __future__ import annotations

import logging
from typing import Final

from ...errors import shown

logger: Final = logging.getLogger("hubbub")


class Foreign:
    """Counts what is skipped.

    Attributes:
        count: How much was.
    """

    def __init__(self) -> None:
        self.count: int = 0
        self._said: set[str] = set()

    def skip(self, what: str, where: object, why: object, *, times: int = 1) -> None:
        """Notes that something was skipped; a warning says the first of its kind.

        Args:
            what: Its kind: "an entry".
            where: The key or channel.
            why: What is wrong with it.
            times: How many.
        """
        self.count += times
        if what not in self._said:
            self._said.add(what)
            logger.warning(
                "skipped %s in %s at Redis: it is not of this release of hubbub (%s); others like it are only counted",
                shown(what),
                shown(where),
                shown(why),
            )
