"""The numbers of a report a second time, from the raw files, by plain loops.

Nothing here uses the modules that make the report (no pandas, no scipy): a fault there does not repeat itself here.
"""
