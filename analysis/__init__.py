"""Reads run folders; never trains."""

from .runs import COLUMNS, load_metrics, load_runs

__all__ = ["COLUMNS", "load_metrics", "load_runs"]
