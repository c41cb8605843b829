"""Run folders as tables: what there is, which arm it belongs to, and what may be compared."""
