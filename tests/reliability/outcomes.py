"""What the tests of this folder saw: with ``FAULT_MATRIX=FOLDER`` each leaves a line, and

    python tests/reliability/outcomes.py FOLDER

puts them into ``docs/reliability.md`` as a table, fault by phase.
"""

import hashlib
import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- fault matrix: written by tests/reliability/outcomes.py -->\n", "<!-- end -->\n"
PHASES = ["data", "training", "saving", "evaluation", "fine-tuning", "between runs"]


def shown(fault: str, phase: str, outcome: str) -> None:
    """Called at the end of a test that has shown it."""
    assert phase in PHASES
    folder = os.environ.get("FAULT_MATRIX")
    if folder:
        line = f"{fault}\t{phase}\t{outcome}"
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / hashlib.sha256(line.encode()).hexdigest()[:16]).write_text(line)


def table(folder: Path) -> str:
    """The lines of ``folder`` as Markdown."""
    found: dict[str, dict[str, set[str]]] = {}
    for file in folder.iterdir():
        fault, phase, outcome = file.read_text().split("\t")
        found.setdefault(fault, {}).setdefault(phase, set()).add(outcome)
    rows = ["| fault | " + " | ".join(PHASES) + " |", "|---" * (len(PHASES) + 1) + "|"]
    for fault in sorted(found):
        cells = ["; ".join(sorted(found[fault].get(phase, set()))) for phase in PHASES]
        rows.append(f"| {fault} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def main(folder: Path) -> None:
    """Write the table into the page."""
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCS.write_text(f"{before}{BEGIN}\n{table(folder)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
