"""Derives the numbers of a report a second time, from the raw files, with plain loops.

No module here uses those that make the report (nor pandas or scipy), so a fault in them is not repeated.
"""
