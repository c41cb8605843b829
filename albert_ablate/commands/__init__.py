"""The commands beside ``run.py``, one file each."""
