"""The results as few files of limited size: run folders, records, log, trace and the weights of the first cells."""

import io
import lzma
import tarfile
from pathlib import Path

from albert_ablate.files import read_json, replacing
from benchmarks.rented_gpu.places import Places

#: What a lender of GPUs brings back at most.
LARGEST, MOST = 16 * 2**20, 8
_WEIGHTS = 2  # archives
_LEFT_OUT = ("checkpoints", "diverged")


def pack(places: Places, weights: bool) -> list[str]:
    """Write what there is to ``places.packed``; returns what had to be left out, in words. Safe to repeat.

    The journal is written last: where it says that the campaign has ended, the other files are there.
    """
    places.packed.mkdir(exist_ok=True)
    left_out = []
    plain = (places.checks, places.decisions, places.trace)
    contents = {file.name: file.read_bytes() for file in plain if file.is_file()}
    if places.log.is_file():
        contents[places.log.name] = places.log.read_bytes()[-LARGEST // 8 :]
    contents["runs.tar.xz"] = runs_archive(places, predictions=True)
    if len(contents["runs.tar.xz"]) > LARGEST:
        left_out.append("predictions of the fine-tunings")
        contents["runs.tar.xz"] = runs_archive(places, predictions=False)
    if weights:
        contents |= weights_archives(places)
    if places.journal.is_file():
        contents[places.journal.name] = places.journal.read_bytes()
    for name, content in contents.items():
        if len(content) > LARGEST:
            left_out.append(f"{name}: {len(content) / 2**20:.1f} MiB")
        else:
            with replacing(places.packed / name) as temporary:
                temporary.write_bytes(content)
    return left_out


def runs_archive(places: Places, predictions: bool) -> bytes:
    """The run folders of campaign and pilot without weights, as ``.tar.xz``."""
    without = _LEFT_OUT if predictions else (*_LEFT_OUT, "predictions")
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for top in (places.runs, places.pilot):
            for file in sorted(top.rglob("*")):
                parts = file.relative_to(places.work).parts
                hidden = any(part.startswith(".") for part in parts)
                if file.is_file() and not hidden and file.suffix != ".safetensors" and not set(parts) & set(without):
                    archive.add(file, "/".join(parts))
    return lzma.compress(plain.getvalue(), preset=2)


def weights_archives(places: Places) -> dict[str, bytes]:
    """``weights-1.tar`` and so on: fp16 weights of finished runs, the first ones first, as far as there is room."""
    finished = []
    for file in places.runs.glob("[!.]*/status.json"):
        status = read_json(file)
        if status["state"] == "finished":
            finished.append((status["started"], file.parent))
    archives: list[list[tuple[str, bytes]]] = [[] for _ in range(_WEIGHTS)]
    sizes = [0] * _WEIGHTS
    for _, run in sorted(finished):
        content = half_precision(run)
        number = next((n for n in range(_WEIGHTS) if sizes[n] + len(content) + 20_000 < LARGEST), None)
        if content and number is not None:
            archives[number].append((f"{run.name}.safetensors", content))
            sizes[number] += len(content) + 1024
    return {f"weights-{n + 1}.tar": _tar(members) for n, members in enumerate(archives) if members}


def half_precision(run: Path) -> bytes:
    """The newest weights of a run as a safetensors file in fp16; empty where it has none."""
    from safetensors.torch import load_file, save

    file = max(run.glob("checkpoints/step_*/model.safetensors"), default=None)
    return b"" if file is None else save({name: tensor.half() for name, tensor in load_file(file).items()})


def _tar(members: list[tuple[str, bytes]]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return plain.getvalue()


def bring(places: Places) -> list[str]:
    """Copy the packed files to the folder that is brought back; returns their names. Raises OSError."""
    files = sorted(places.packed.glob("*")) if places.packed.is_dir() else []
    for file in files[:MOST]:
        with replacing(places.out / file.name) as temporary:
            temporary.write_bytes(file.read_bytes())
    return [file.name for file in files[:MOST]]
