"""One file for each command beside ``run.py``."""
