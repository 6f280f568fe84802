"""Measures the cost of hubbub and of other servers. ``scripts/bench`` runs it."""
