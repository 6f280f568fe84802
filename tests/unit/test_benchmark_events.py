"""The benchmark's clients of event streams: what they count."""

from __future__ import annotations

import os
import socket

import pytest

pytest.importorskip("psutil", reason="the benchmark measures with psutil")

from benchmarks import load
from benchmarks.dialects import DIALECTS


def test_messages_in_a_stream_of_events_are_counted_wherever_it_is_cut() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        measured = load.Load([0], os.getpid(), DIALECTS["events"], 128)
        client = load.Client(ours, DIALECTS["events"], (b"", b""))
        client.watched = True
        numbers = [b"#%08d" % number for number in range(4)]
        measured.sent_at = dict.fromkeys(numbers, 0.0)
        stream = b"".join(b"1a\r\ndata: %bxxxx\n\n\r\n" % number for number in numbers)
        found = 0
        for at in range(0, len(stream), 7):
            theirs.send(stream[at : at + 7])
            found += measured.receive(client)
        assert found == 4
        assert client.seen == set(numbers)
        assert not measured.problems
        measured.close()
