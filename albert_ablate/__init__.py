"""Controlled ablations of BERT-style encoders along ALBERT's three axes. From Python: ``import albert_ablate as aa``.

The names of ``__all__`` are loaded when they are first asked for: the import itself takes no time.
"""

from typing import TYPE_CHECKING, Any

from albert_ablate.environment import require_environment
from albert_ablate.shipped import VERSION, shipped

require_environment()

if TYPE_CHECKING:
    from albert_ablate.api import Run, compose, load, load_runs, report, run, sweep
    from albert_ablate.errors import UserError
    from albert_ablate.loading import LoadedRun

__version__ = VERSION
__all__ = ["LoadedRun", "Run", "UserError", "compose", "load", "load_runs", "report", "run", "sweep"]

# In a checkout ``albert_ablate.analysis`` stands beside the package.
__path__ = list(dict.fromkeys([*__path__, str(shipped("analysis").parent)]))


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from albert_ablate import api, errors, loading

    return next(vars(module)[name] for module in (api, errors, loading) if name in vars(module))


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
