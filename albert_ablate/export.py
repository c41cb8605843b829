"""``python -m albert_ablate.export``: see ``albert_ablate.commands.export``."""

import sys

from albert_ablate.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
