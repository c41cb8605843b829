"""The parts of matplotlib in use, imported independently of ``MPLBACKEND``.

A notebook passes its backend in this variable to every command it starts, and importing matplotlib fails
if it does not know the backend. Figures are drawn without a backend, so matplotlib is imported without the
variable, which is restored afterwards for programs that use pyplot.
"""

import os
import sys
from contextlib import suppress

_backend = os.environ.pop("MPLBACKEND", None) if "matplotlib" not in sys.modules else None
try:
    import matplotlib as mpl
    from matplotlib import style as styles
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
if _backend:
    with suppress(ValueError):  # matplotlib does not know it
        mpl.rcParams["backend"] = _backend

__all__ = ["EngFormatter", "Figure", "Line2D", "LogLocator", "MaxNLocator", "NullLocator", "ScalarFormatter", "styles"]
