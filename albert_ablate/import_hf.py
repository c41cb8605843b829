"""``python -m albert_ablate.import_hf``: see ``albert_ablate.commands.import_hf``."""

import sys

from albert_ablate.commands.import_hf import main

if __name__ == "__main__":
    sys.exit(main())
