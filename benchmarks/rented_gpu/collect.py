"""The second command on the rented machine: wait for the campaign and bring back what it has packed.

``python -m benchmarks.rented_gpu.collect`` copies the results as often as they are renewed, so that a command that is
cut off still brings what there was.
"""

import os
import time

from benchmarks.rented_gpu.places import Places, install, parser, places_of

_POLL_SECONDS = 2.0


def main() -> None:
    """Wait, copy, say what there is."""
    made = parser("collect", (__doc__ or "").partition("\n")[0])
    made.add_argument("--seconds", type=float, default=500, help="to wait at most")
    options = made.parse_args()
    places = places_of(options)
    install(places)
    from benchmarks.rented_gpu.results import bring, pack

    end = time.monotonic() + options.seconds
    while time.monotonic() < end and not ended(places) and running(places):
        bring(places)
        time.sleep(min(_POLL_SECONDS, max(end - time.monotonic(), 0)))
    if not ended(places):
        print(f"the campaign {'still runs' if running(places) else 'died'}; its journal says what is finished")
        pack(places, weights=not running(places))
    files = bring(places)
    print(f"{len(files)} files in {places.out}: {', '.join(files)}")
    print(summary(places))


def ended(places: Places) -> bool:
    """Whether the packed journal says that the campaign is over; what it has packed is complete then."""
    from albert_ablate.files import read_json

    journal = places.packed / places.journal.name
    return journal.is_file() and bool(read_json(journal).get("ended"))


def running(places: Places) -> bool:
    """Whether the process of the campaign is alive."""
    file = places.work / "campaign.pid"
    try:
        os.kill(int(file.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def summary(places: Places) -> str:
    """A line for each state that cells are in."""
    from collections import Counter

    from albert_ablate.files import read_json

    if not places.journal.is_file():
        return "no campaign was started"
    journal = read_json(places.journal)
    states = Counter(job["state"] for job in journal["jobs"].values())
    why = f"; {journal['why']}" if "why" in journal else ""
    return ", ".join(f"{count} {state}" for state, count in states.items()) + why


if __name__ == "__main__":
    main()
