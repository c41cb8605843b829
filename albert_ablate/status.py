"""``python -m albert_ablate.status``: see ``albert_ablate.commands.status``."""

import sys

from albert_ablate.commands.status import main

if __name__ == "__main__":
    sys.exit(main())
