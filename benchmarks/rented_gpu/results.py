"""Packs the results into few files of limited size: run folders, records, log, trace, weights of the first cells."""

import io
import lzma
import tarfile
from pathlib import Path

from albert_ablate.files import read_json, replacing
from benchmarks.rented_gpu.places import Folders

#: Limits of what is brought back: bytes of a file, number of files.
LARGEST, MOST = 16 * 2**20, 8
_WEIGHTS = 2  # archives
_LEFT_OUT = ("checkpoints", "diverged")


def pack(folders: Folders, weights: bool) -> list[str]:
    """Write the results so far to ``folders.packed``; returns a line for each part left out. Safe to repeat.

    The journal is written last, so once it says that the campaign has ended, the other files are complete.
    """
    folders.packed.mkdir(exist_ok=True)
    left_out = []
    plain = (folders.checks, folders.decisions, folders.trace)
    contents = {file.name: file.read_bytes() for file in plain if file.is_file()}
    if folders.log.is_file():
        contents[folders.log.name] = folders.log.read_bytes()[-LARGEST // 8 :]
    contents["runs.tar.xz"] = runs_archive(folders, predictions=True)
    if len(contents["runs.tar.xz"]) > LARGEST:
        left_out.append("predictions of the fine-tunings")
        contents["runs.tar.xz"] = runs_archive(folders, predictions=False)
    if weights:
        contents |= weights_archives(folders)
    if folders.journal.is_file():
        contents[folders.journal.name] = folders.journal.read_bytes()
    for name, content in contents.items():
        if len(content) > LARGEST:
            left_out.append(f"{name}: {len(content) / 2**20:.1f} MiB")
        else:
            with replacing(folders.packed / name) as temporary:
                temporary.write_bytes(content)
    return left_out


def runs_archive(folders: Folders, predictions: bool) -> bytes:
    """The run folders of the campaign and the pilot without weights, as ``.tar.xz``."""
    without = _LEFT_OUT if predictions else (*_LEFT_OUT, "predictions")
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for top in (folders.runs, folders.pilot):
            for file in sorted(top.rglob("*")):
                parts = file.relative_to(folders.work).parts
                hidden = any(part.startswith(".") for part in parts)
                if file.is_file() and not hidden and file.suffix != ".safetensors" and not set(parts) & set(without):
                    archive.add(file, "/".join(parts))
    return lzma.compress(plain.getvalue(), preset=2)


def weights_archives(folders: Folders) -> dict[str, bytes]:
    """``weights-1.tar`` and so on: fp16 weights of finished runs in order of their start, as far as they fit."""
    finished = []
    for file in folders.runs.glob("[!.]*/status.json"):
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
    """The newest weights of a run as a safetensors file in fp16; empty if it has none."""
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


def bring(folders: Folders) -> list[str]:
    """Copy the packed files to ``folders.out``; returns their names. Raises OSError."""
    files = sorted(folders.packed.glob("*")) if folders.packed.is_dir() else []
    for file in files[:MOST]:
        with replacing(folders.out / file.name) as temporary:
            temporary.write_bytes(file.read_bytes())
    return [file.name for file in files[:MOST]]
