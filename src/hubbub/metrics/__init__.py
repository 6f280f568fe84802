"""What the manager counts."""
