"""Reads run folders; never trains."""

from .read.runs import COLUMNS, load_metrics, load_runs

__all__ = ["COLUMNS", "load_metrics", "load_runs"]
