"""The second command on the rented machine: waits for the campaign and brings back its packed results.

``python -m benchmarks.rented_gpu.collect`` copies the results again and again, so that a command that is cut off still
brings back the latest ones.
"""

import os
import time

from benchmarks.rented_gpu.places import Folders, folders_of, install, parser

_POLL_SECONDS = 2.0


def main() -> None:
    """Wait, copy the results, and print a summary."""
    command = parser("collect", (__doc__ or "").partition("\n")[0])
    command.add_argument("--seconds", type=float, default=500, help="longest wait")
    options = command.parse_args()
    folders = folders_of(options)
    install(folders)
    from benchmarks.rented_gpu.results import bring, pack

    end = time.monotonic() + options.seconds
    while time.monotonic() < end and not ended(folders) and running(folders):
        bring(folders)
        time.sleep(min(_POLL_SECONDS, max(end - time.monotonic(), 0)))
    if not ended(folders):
        print(f"the campaign {'still runs' if running(folders) else 'died'}; its journal says what is finished")
        pack(folders, weights=not running(folders))
    files = bring(folders)
    print(f"{len(files)} files in {folders.out}: {', '.join(files)}")
    print(summary(folders))


def ended(folders: Folders) -> bool:
    """Whether the packed journal says that the campaign has ended; the packed results are complete then."""
    from albert_ablate.files import read_json

    journal = folders.packed / folders.journal.name
    return journal.is_file() and bool(read_json(journal).get("ended"))


def running(folders: Folders) -> bool:
    """Whether the process of the campaign is running."""
    file = folders.work / "campaign.pid"
    try:
        os.kill(int(file.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def summary(folders: Folders) -> str:
    """How many cells are in each state, and why the campaign ended early if it did."""
    from collections import Counter

    from albert_ablate.files import read_json

    if not folders.journal.is_file():
        return "no campaign was started"
    journal = read_json(folders.journal)
    states = Counter(job["state"] for job in journal["jobs"].values())
    why = f"; {journal['why']}" if "why" in journal else ""
    return ", ".join(f"{count} {state}" for state, count in states.items()) + why


if __name__ == "__main__":
    main()
