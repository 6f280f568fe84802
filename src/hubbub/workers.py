"""How many processes serve the app: told from the server that runs the event loop, where it can be.

On ``memory://`` each process knows its own clients only, and most messages of a fleet would be lost without a word.
"""

from __future__ import annotations

import asyncio
from typing import Any


def sibling_workers() -> int:
    """The number of worker processes that the server was told to run; 1 where it can't be told.

    Asks the settings of the server (uvicorn, gunicorn's worker, hypercorn), which is found as what the loop's tasks
    run. A server that reloads on changes runs one process, whatever it was told.
    """
    most = 1
    for task in asyncio.all_tasks():
        frame: Any = getattr(task.get_coro(), "cr_frame", None)
        if frame is None:
            continue
        for owner in (frame.f_locals.get("self"), frame.f_locals.get("config")):
            for settings in (owner, getattr(owner, "config", None), getattr(owner, "cfg", None)):
                workers = getattr(settings, "workers", None)
                if isinstance(workers, int) and not getattr(settings, "reload", False):
                    most = max(most, workers)
    return most
