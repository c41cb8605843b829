"""Checks, benchmarks and a campaign of ablations in a quarter of an hour on a rented GPU (README.md)."""
