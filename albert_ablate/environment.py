"""Refuses a Python in which the package cannot work, in a sentence instead of a traceback.

Python 3.6 can still read this file, ``__init__.py``, ``shipped.py`` and ``run.py``: it must say that it is too old.
"""

import os
import sys
from importlib.util import find_spec

from albert_ablate.shipped import IN_CHECKOUT

#: The minor versions of Python 3 in ``requires-python``.
MINORS = (11, 12, 13)
#: The modules of the required packages. Packages that only some runs need are missed where they are used.
MODULES = (
    "filelock", "hydra", "jinja2", "matplotlib", "numpy", "omegaconf", "pandas", "pydantic", "rich", "safetensors",
    "scipy", "sentencepiece", "sentencex", "sklearn", "torch", "yaml",
)  # fmt: skip
#: What ``sys.argv[0]`` begins with while a command is loaded: by ``python -m``, by its file, by its name.
_COMMANDS = ("-m", "run.py", "albert-ablate")


def require_environment() -> None:
    """Raises ImportError for an unsuitable Python or missing packages; a command prints it and exits with 2."""
    problem = _problem()
    if not problem:
        return
    if sys.argv and os.path.basename(sys.argv[0]) in _COMMANDS:
        sys.stderr.write(f"\n{problem}\n\n")
        sys.exit(2)
    raise ImportError(problem)


def _problem() -> str:
    """What is wrong with this Python; empty if nothing is."""
    python = f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info[0] != 3 or sys.version_info[1] not in MINORS:
        *first, last = [f"3.{minor}" for minor in MINORS]
        return f"albert-ablate needs Python {', '.join(first)} or {last}; {python}. {_remedy()}"
    missing = [name for name in MODULES if name not in sys.modules and find_spec(name) is None]
    if missing:
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        return f"{python}, which lacks packages of albert-ablate: {named}. {_remedy()}"
    return ""


def _remedy() -> str:
    if IN_CHECKOUT:
        return "Run `make setup` once, then `source .venv/bin/activate` in each new terminal."
    return "Install it in a suitable one: pip install albert-ablate"
