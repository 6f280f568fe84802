"""Rooms: their members, the messages that members receive, and those that they missed."""
