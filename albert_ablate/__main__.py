"""``python -m albert_ablate``: see ``command_line``."""

import sys

from albert_ablate.command_line import main

if __name__ == "__main__":
    sys.exit(main())
