"""Measurements against what a user would pick instead. ``README.md`` says how to run them and what counts."""
