"""The counters of a manager."""
