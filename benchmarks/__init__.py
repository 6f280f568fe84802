"""What hubbub costs, beside its peers. Run by ``scripts/bench``."""
