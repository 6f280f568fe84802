"""Streams of events over HTTP: members of rooms like any other, whose clients only read."""
