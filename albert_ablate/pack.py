"""``python -m albert_ablate.pack``: see ``albert_ablate.commands.pack``."""

import sys

from albert_ablate.commands.pack import main

if __name__ == "__main__":
    sys.exit(main())
