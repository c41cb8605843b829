"""``python -m albert_ablate.wordnet``: see ``albert_ablate.commands.wordnet``."""

import sys

from albert_ablate.commands.wordnet import main

if __name__ == "__main__":
    sys.exit(main())
