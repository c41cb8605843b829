"""``python -m albert_ablate.kshot``: see ``albert_ablate.commands.kshot``."""

import sys

from albert_ablate.commands.kshot import main

if __name__ == "__main__":
    sys.exit(main())
