"""Run one cell of an ablation, or several with -m. ``python run.py --help`` lists the axes."""

import sys

from albert_ablate.door.app import main

if __name__ == "__main__":
    sys.exit(main())
