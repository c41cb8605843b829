"""Four loss curves of one run: one undisturbed, three killed and continued. ``python tests/reliability/curves.py``.

Trains on the embedded corpus, some five minutes in all, and writes ``docs/reliability.svg`` with the
numbers beside it; prints the largest difference between the curves, which has to be 0.
"""

import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "reliability")]

import pandas as pd  # noqa: E402
from killing import assert_equal_records, killed_until_done  # noqa: E402
from runhelpers import run_folders  # noqa: E402

from albert_ablate.record.folder import RunFolder  # noqa: E402
from analysis.draw.style import COLOURS, Drawing, canvas, styled, write  # noqa: E402

SETTINGS = ["budget.steps=300", "budget.warmup_steps=40", "runtime.log_every=5", "runtime.checkpoint_every=40"]
SETTINGS += ["evaluation.max_pairs=256", "evaluation.probe_pairs=256", "runtime.threads=1"]


def main() -> None:
    """Train four times, compare, draw."""
    place, draw = Path(tempfile.mkdtemp(prefix="curves-")), random.Random(7)
    folders, kills = [], []
    for number in range(4):
        runs = place / f"runs-{number}"
        words = [*SETTINGS, f"paths.runs={runs}", f"paths.cache={place / 'cache'}"]
        kills.append(killed_until_done(words, place, runs, draw, longest=80, most=5 if number else 0, patience=900))
        (found,) = run_folders(runs)
        folders.append(RunFolder(found.parent, found.name))
        print(f"run {number}: {kills[-1]} kills", flush=True)
    for folder in folders[1:]:
        assert_equal_records(folder, folders[0])
    names = ["undisturbed", *(f"killed {count} times" for count in kills[1:])]
    lines = {name: folder.metrics() for name, folder in zip(names, folders, strict=True)}
    curves = {name: pd.Series({line["step"]: line["mlm_loss"] for line in found}) for name, found in lines.items()}
    table = pd.DataFrame(curves)
    print(f"largest difference: {float((table.max(axis=1) - table.min(axis=1)).max())}")
    with styled():
        figure, axes = canvas((6.4, 3.2))
        for i, name in enumerate(names):  # each thinner than the one below it, so that all are seen
            axes.plot(table.index, table[name], label=name, linewidth=8 - 2.2 * i, color=COLOURS[(6, 1, 2, 0)[i]])
        axes.set(xlabel="step", ylabel="masked-LM loss (nats)", title="One run, four times")
        axes.grid(axis="y")
        axes.legend()
    data = table.rename_axis("step").reset_index()
    write(Drawing("reliability", "One run, four times", "", figure, data), ROOT / "docs", forms=("svg",))


if __name__ == "__main__":
    main()
