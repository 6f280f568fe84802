"""Closes the tickets in which nobody has written for three days. A process of its own, beside the app."""

import os
import time
from contextlib import contextmanager

from hubbub import BrokerUnavailable, Publisher

from .notices import Sends, ticket_closed
from .store import Store, open_store

STALE_AFTER_S = float(os.environ.get("STALE_AFTER_S", 3 * 86_400))
EVERY_S = 60


def close_stale(tickets: Store, sends: Sends, before: float) -> int:
    """Closes the tickets whose last message is from before a time. Returns how many."""
    count = 0
    for ticket in tickets.stale(before):
        if tickets.close(ticket.id, before):  # not if somebody has just written, or closed it
            closed = ticket.model_copy(update={"is_open": False})
            ticket_closed(sends, closed, None, f"“{ticket.subject}” was closed, because nobody wrote any more")
            count += 1
    return count


def main() -> None:
    with Publisher(os.environ["BROKER"]) as publisher:
        while True:
            try:
                with contextmanager(open_store)() as tickets:
                    print("closed", close_stale(tickets, publisher, time.time() - STALE_AFTER_S), flush=True)
            except BrokerUnavailable as error:  # the tickets are closed all the same; pages see it when they load
                print(error, flush=True)
            time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
