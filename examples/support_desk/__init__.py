"""A support desk: docs/tutorial.md builds it step by step."""
