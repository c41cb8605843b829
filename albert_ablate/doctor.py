"""``python -m albert_ablate.doctor``: see ``albert_ablate.commands.doctor``."""

import sys

from albert_ablate.commands.doctor import main

if __name__ == "__main__":
    sys.exit(main())
