"""``python -m albert_ablate.predict``: see ``albert_ablate.commands.predict``."""

import sys

from albert_ablate.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
