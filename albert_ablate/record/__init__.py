"""The files of a run folder as types: writers construct them, and readers validate with them."""
