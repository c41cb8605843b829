"""The version, and folders that come with the code: beside the package in a checkout, inside it if it is installed."""

from pathlib import Path

VERSION = "0.1.0"
_PACKAGE = Path(__file__).resolve().parent
#: Whether the code lies in a checkout of the repository, else in an installed package.
IN_CHECKOUT = not (_PACKAGE / "conf").is_dir()


def install_command(extra: str) -> str:
    """The command that installs the packages of an optional ``extra`` of ``pyproject.toml``."""
    return f"pip install -e '.[{extra}]'" if IN_CHECKOUT else f"pip install 'albert-ablate[{extra}]'"


def shipped(name: str) -> Path:
    """The path of the folder ``analysis``, ``conf`` or ``sweeps``."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
