"""Reads run folders; never trains."""
