"""``python -m albert_ablate.generate``: see ``albert_ablate.commands.generate``."""

import sys

from albert_ablate.commands.generate import main

if __name__ == "__main__":
    sys.exit(main())
