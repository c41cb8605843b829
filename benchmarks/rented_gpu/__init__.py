"""A quarter of an hour on a rented GPU: checks, benchmarks and a campaign of ablations (README.md)."""
