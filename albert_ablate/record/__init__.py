"""The files of a run folder as types: writers construct them, readers validate with them."""
