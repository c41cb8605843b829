"""Reads run folders; never trains."""

import albert_ablate  # noqa: F401  # first: it refuses an unsuitable Python in words

from .read.runs import COLUMNS, load_metrics, load_runs

__all__ = ["COLUMNS", "load_metrics", "load_runs"]
