"""Run folders as tables: which runs exist, which arm each belongs to, and which may be compared."""
