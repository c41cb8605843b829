"""Downstream tasks: readers, features, heads, metrics, and the fine-tuning of a trained encoder."""
