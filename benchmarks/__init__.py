"""Speed and memory compared with common alternatives. ``README.md`` says how to run and read the measurements."""
