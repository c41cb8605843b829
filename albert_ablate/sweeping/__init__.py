"""Sweeps: from a file in ``sweeps/`` to cells, to finished run folders."""
