"""``python -m albert_ablate.evaluate``: see ``albert_ablate.commands.evaluate``."""

import sys

from albert_ablate.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
