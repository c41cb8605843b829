"""``python -m albert_ablate.plan``: see ``albert_ablate.commands.plan``."""

import sys

from albert_ablate.commands.plan import main

if __name__ == "__main__":
    sys.exit(main())
