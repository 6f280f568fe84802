"""Granian as on Python 3.14, where its workers are spawned and not forked: `python -m <this> PORT`."""

from __future__ import annotations

import multiprocessing
import sys

from granian.constants import Interfaces
from granian.server import Server

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    Server(
        "tests.integration.server_apps.chat:app", port=int(sys.argv[1]), interface=Interfaces.ASGI, workers=2
    ).serve()
