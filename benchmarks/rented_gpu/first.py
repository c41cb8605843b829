"""The first command on the rented machine: checks correctness, measures speed and starts the campaign.

``python -m benchmarks.rented_gpu.first`` ends within 225 seconds and leaves the campaign running.
"""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rented_gpu.places import ROOT, Folders, folders_of, install, parser

#: Seconds reserved for starting the campaign and writing the records.
_LAST = 4


def main() -> None:
    """Install, check, measure, decide, start the campaign."""
    began = time.monotonic()
    options = parser("first", (__doc__ or "").partition("\n")[0]).parse_args()
    folders = folders_of(options)
    installed = install(folders)
    from albert_ablate.files import write_json  # after its packages are installed
    from benchmarks.alone import Background, together
    from benchmarks.rented_gpu.sections import run_sections
    from benchmarks.rented_gpu.sizes import size_of
    from benchmarks.rented_gpu.speed import compile_peers

    size = size_of(options.tiny)
    known: dict[str, Any] = {"machine": machine(), "installed": installed, "tiny": options.tiny, "sections": {}}

    def done(name: str, outcome: dict[str, Any]) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {name}: {json.dumps(outcome)[:400]}", flush=True)
        known["sections"][name] = outcome
        for file in (folders.checks, folders.out / "checks.json"):
            write_json(file, known)

    def run(sections: list[Any]) -> dict[str, dict[str, Any]]:
        left = size.first - _LAST - (time.monotonic() - began)
        return run_sections(sections, left, time.monotonic, together, done)

    compiling = Background(compile_peers, size)
    try:
        decision = decide(run(decisive(folders, size, compiling)), size)
        for file in (folders.decisions, folders.out / "decisions.json"):
            write_json(file, decision)
        print(f"{time.monotonic() - began:6.1f} s  decided: {json.dumps(decision)}", flush=True)
        run(informative(folders, size, compiling, decision["backend"]))
    finally:
        compiling.end()
    if folders.trace.is_file():
        (folders.out / folders.trace.name).write_bytes(folders.trace.read_bytes())
    if decision["go"]:
        start_campaign(folders, options.tiny)


def decisive(folders: Folders, size: Any, compiling: Any) -> list[Any]:
    """The sections that decide whether and how the campaign starts.

    ``compiling`` runs at the same time as sections that measure no speed.
    """
    from benchmarks.rented_gpu import backends, correctness
    from benchmarks.rented_gpu.sections import Section

    speeds = [
        Section(f"speed, {name}", 25, 8, partial(backends.speeds, folders=folders, size=size, backend=name))
        for name in size.backends
    ]
    return [
        Section("corpus", 30, 5, lambda ask: ask(unpacked, folders, size)),
        Section("compiling transformers", 5, 1, lambda _: compiling.begin()),
        Section("golden losses", 40, 10, partial(correctness.golden, size=size)),
        Section("backends agree", 45, 10, partial(backends.agree, folders=folders, size=size)),
        Section("transformers compiled so far", 10, 1, lambda _: compiling.end()),
        *speeds,
    ]


def informative(folders: Folders, size: Any, compiling: Any, backend: str) -> list[Any]:
    """The sections that the campaign does not depend on, those with targets first; our side uses ``backend``."""
    from benchmarks.rented_gpu import backends, blocks, speed
    from benchmarks.rented_gpu.sections import Section

    larger = partial(backends.speeds, folders=folders, size=size, backend=backend, more=size.larger)
    return [
        Section("compiling the rest", 5, 1, lambda _: compiling.begin()),
        Section("waits", 20, 8, partial(backends.waits, folders=folders, size=size)),
        Section("same bits", 30, 10, partial(backends.same_bits, folders=folders, size=size)),
        Section("resumed", 25, 10, partial(backends.resumed, folders=folders, size=size)),
        Section("transformers compiled", 10, 1, lambda _: compiling.end()),
        Section("ceilings", 12, 5, partial(speed.ceilings, size=size)),
        Section("transformers", 105, 20, partial(speed.peers, folders=folders, size=size, backend=backend)),
        Section("attention", 15, 5, lambda ask: ask(speed.attention, size)),
        Section("attention in blocks", 25, 8, lambda ask: ask(blocks.kernels, size)),
        Section("profile", 12, 8, lambda ask: ask(speed.profile, folders, size, backend)),
        Section("larger model", 30, 12, larger),
    ]


def unpacked(folders: Folders, size: Any) -> dict[str, Any]:
    """Unpack the corpus into the cache; returns the records of its tokens and origin, and the commit of the code."""
    from albert_ablate.data.prepare import prepare
    from albert_ablate.door.compose import compose
    from albert_ablate.record.provenance import commit
    from benchmarks.rented_gpu.correctness import run_overrides

    prepared = prepare(compose(run_overrides(folders, size)))
    return {"tokens": prepared.record["tokens"], "corpus": prepared.record["corpus"], "source": commit()}


def decide(sections: dict[str, dict[str, Any]], size: Any) -> dict[str, Any]:
    """Whether the campaign starts; its backend, its number of processes, and the speed to plan with.

    Takes the fastest backend among those whose losses agree with the first backend's and whose speed was measured.
    """
    values = {name: section.get("value") for name, section in sections.items()}
    golden, agree = values["golden losses"], values["backends agree"] or {}
    right = [name for name in size.backends if name == size.backends[0] or agree.get(name, {}).get("passed")]
    measured = {name: value for name in right if (value := values[f"speed, {name}"])}
    refused = {"go": False, "backend": size.backends[0]}
    if golden is None or not golden["passed"]:
        return refused | {"why": "the recorded losses were not reached"}
    if not measured:
        return refused | {"why": "the speed of training was not measured"}
    rate, backend, processes = max(
        (rate, name, processes)
        for name, speeds in measured.items()
        for processes, rate in speeds["tokens per second"].items()
    )
    return {
        "go": True, "backend": backend, "attention": measured[backend]["attention"], "processes": int(processes),
        "tokens_per_second": rate, "assumed": size.assumed,
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """Card, driver and versions, found without importing the packages."""
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


def start_campaign(folders: Folders, tiny: bool) -> int:
    """Start the campaign in a new session, so that it outlives this command; returns its process id."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.rented_gpu.campaign",
        *folders.arguments(),
        *(["--tiny"] if tiny else []),
    ]
    with folders.log.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    Path(folders.work / "campaign.pid").write_text(str(process.pid))
    print(f"campaign started as process {process.pid}; collect its results with benchmarks.rented_gpu.collect")
    return process.pid


if __name__ == "__main__":
    main()
