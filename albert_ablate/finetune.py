"""``python -m albert_ablate.finetune``: see ``albert_ablate.commands.finetune``."""

import sys

from albert_ablate.commands.finetune import main

if __name__ == "__main__":
    sys.exit(main())
