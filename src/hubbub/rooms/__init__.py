"""Many clients: members of rooms, what they receive, and what they missed."""
