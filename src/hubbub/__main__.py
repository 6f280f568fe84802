"""``python -m hubbub``: the same as ``hubbub``."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
