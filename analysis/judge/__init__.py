"""Estimates, tests, tables and verdicts."""
