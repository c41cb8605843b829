"""Folders that come with the code: beside the package in a checkout, inside the package if it is installed."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """The path of the folder ``analysis``, ``conf`` or ``sweeps``."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
