"""What is used of matplotlib, loaded whatever the environment says about it.

A notebook hands its backend to every command that is started from it (``MPLBACKEND``), and matplotlib
refuses to be imported where it does not know that one. Figures here are drawn without a backend: so it is
loaded without the variable. A program that goes on to use pyplot still finds the backend it named.
"""

import os
import sys
from contextlib import suppress

_named = os.environ.pop("MPLBACKEND", None) if "matplotlib" not in sys.modules else None
try:
    import matplotlib as mpl
    from matplotlib import style as styles
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter, ScalarFormatter
finally:
    if _named is not None:
        os.environ["MPLBACKEND"] = _named
if _named:
    with suppress(ValueError):  # matplotlib does not know it
        mpl.rcParams["backend"] = _named

__all__ = ["EngFormatter", "Figure", "Line2D", "MaxNLocator", "NullFormatter", "ScalarFormatter", "styles"]
