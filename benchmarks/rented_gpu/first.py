"""The first command on the rented machine: is it right, how fast is it; then the campaign starts by itself.

``python -m benchmarks.rented_gpu.first`` ends within 225 seconds by its own clock, and leaves a campaign running.
"""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rented_gpu.places import ROOT, Places, install, parser, places_of

#: Seconds kept for starting the campaign and saying what was found.
_LAST = 4


def main() -> None:
    """Install, check, measure, decide, start the campaign."""
    began = time.monotonic()
    options = parser("first", (__doc__ or "").partition("\n")[0]).parse_args()
    places = places_of(options)
    said = install(places)
    from albert_ablate.files import write_json  # only now are its packages there
    from benchmarks.alone import Background, together
    from benchmarks.rented_gpu.sections import run_sections
    from benchmarks.rented_gpu.sizes import size_of
    from benchmarks.rented_gpu.speed import compile_peers

    size = size_of(options.tiny)
    known: dict[str, Any] = {"machine": machine(), "installed": said, "tiny": options.tiny}

    def done(sections: dict[str, dict[str, Any]]) -> None:
        name, found = next(reversed(sections.items()))
        print(f"{time.monotonic() - began:6.1f} s  {name}: {json.dumps(found)[:400]}", flush=True)
        for file in (places.checks, places.out / "checks.json"):
            write_json(file, known | {"sections": sections})

    compiling = Background(compile_peers, size)
    left = size.first - _LAST - (time.monotonic() - began)
    try:
        found = run_sections(sections_of(places, size, compiling), left, time.monotonic, together, done)
    finally:
        compiling.end()
    decision = decide(found, size)
    for file in (places.decisions, places.out / "decisions.json"):
        write_json(file, decision)
    if places.trace.is_file():
        (places.out / places.trace.name).write_bytes(places.trace.read_bytes())
    print(f"{time.monotonic() - began:6.1f} s  decided: {json.dumps(decision)}", flush=True)
    if decision["go"]:
        start_campaign(places, options.tiny)


def sections_of(places: Places, size: Any, compiling: Any) -> list[Any]:
    """In the order of their use: what decides whether the campaign starts comes first.

    ``compiling`` runs beside what is no matter of speed.
    """
    from benchmarks.rented_gpu import correctness, speed
    from benchmarks.rented_gpu.sections import Section

    def peers(ask: Any) -> dict[str, Any]:
        return {"compiled ahead": compiling.end(), "rows": speed.peers(ask, size)}

    return [
        Section("corpus", 40, 5, lambda ask: ask(unpacked, places, size)),
        Section("golden losses", 50, 10, partial(correctness.golden, size=size)),
        Section("speed", 35, 10, partial(speed.speeds, places=places, size=size)),
        Section("ceilings", 12, 5, partial(speed.ceilings, size=size)),
        Section("compiling transformers", 5, 1, lambda _: compiling.begin()),
        Section("same bits", 25, 8, partial(correctness.same_bits, places=places, size=size)),
        Section("resumed", 20, 6, partial(correctness.resumed, places=places, size=size)),
        Section("waits", 10, 4, partial(correctness.waits, places=places, size=size)),
        Section("attention", 15, 5, lambda ask: ask(speed.attention, size)),
        Section("transformers", 105, 20, peers),
        Section("larger model", 30, 12, partial(speed.speeds, places=places, size=size, more=size.larger)),
        Section("profile", 12, 6, lambda ask: ask(speed.profile, places, size)),
    ]


def unpacked(places: Places, size: Any) -> dict[str, Any]:
    """Unpack the corpus into the cache; returns what is known of it."""
    from albert_ablate.data.prepare import prepare
    from albert_ablate.door.compose import compose
    from albert_ablate.record.provenance import commit
    from benchmarks.rented_gpu.correctness import words_of

    prepared = prepare(compose(words_of(places, size)))
    return {"tokens": prepared.record["tokens"], "corpus": prepared.record["corpus"], "source": commit()}


def decide(sections: dict[str, dict[str, Any]], size: Any) -> dict[str, Any]:
    """Whether the campaign starts, with how many processes, and the speed that it counts on."""
    golden, speeds = sections["golden losses"].get("value"), sections["speed"].get("value")
    if golden is None or not golden["passed"]:
        return {"go": False, "why": "the recorded losses were not reached"}
    if not speeds:
        return {"go": False, "why": "the speed of training was not measured"}
    best = max(speeds, key=lambda processes: speeds[processes])
    return {"go": True, "tokens_per_second": speeds[best], "processes": int(best), "assumed": size.assumed}


def machine() -> dict[str, Any]:
    """Card, driver and versions, as far as they can be asked without loading anything."""
    import platform
    from importlib import metadata

    names = ("torch", "triton", "transformers", "sentencepiece", "numpy", "nvidia-cudnn-cu13")
    versions = {name: next((d.version for d in metadata.distributions(name=name)), None) for name in names}
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        card = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        card = ""
    return {"card": card or None, "python": platform.python_version(), **versions}


def start_campaign(places: Places, tiny: bool) -> int:
    """Start it in a session of its own, which goes on when this command has ended; returns its process id."""
    words = [sys.executable, "-m", "benchmarks.rented_gpu.campaign", *places.words(), *(["--tiny"] if tiny else [])]
    with places.log.open("ab") as log:
        process = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    Path(places.work / "campaign.pid").write_text(str(process.pid))
    print(f"campaign started as process {process.pid}; collect its results with benchmarks.rented_gpu.collect")
    return process.pid


if __name__ == "__main__":
    main()
