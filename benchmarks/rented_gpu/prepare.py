"""Before the machine is rented: collect the files that it needs in one folder.

``python -m benchmarks.rented_gpu.prepare data=text 'data.path=texts/*.jsonl.xz' tokenizer.vocab_size=8000``
"""

import argparse
import itertools
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from albert_ablate import console
from albert_ablate.commands.pack import pack
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError
from albert_ablate.record.provenance import stamp
from albert_ablate.tasks.load import locate
from benchmarks.rented_gpu.places import PACK, ROOT, STAMP, TASKS, WHEELS
from benchmarks.rented_gpu.sizes import Size, size_of

#: Megabytes of all files together. The project itself travels too; it has about two.
LIMIT = 60
#: Packages that an image with PyTorch, transformers, scikit-learn and pandas lacks, or has in a version other than the
#: one that gives the recorded tokenizers and identities.
PACKAGES = (
    "hydra-core", "omegaconf", "antlr4-python3-runtime", "pydantic", "pydantic_core", "annotated-types",
    "typing-inspection", "typing_extensions", "sentencex", "sentencepiece",
)  # fmt: skip
#: Packages without a published wheel, which is built here.
_BUILT = ("antlr4-python3-runtime",)
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


@console.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit code 1 if the files exceed the limit."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rented_gpu.prepare", description="Collect the files that a rented machine needs."
    )
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="data and tokenizer, as for a run")
    parser.add_argument("--out", type=Path, default=ROOT / "rented", help="the folder to write")
    parser.add_argument("--tasks", type=Path, help="files of the fine-tuning tasks, in the form of task.data_dir")
    parser.add_argument("--tiny", action="store_true", help="copy only the tasks of the rehearsal")
    parser.add_argument("--python", default="3.12", help="version of Python on the rented machine")
    parser.add_argument("--no-wheels", action="store_true", help="the rented machine has the packages")
    options = parser.parse_intermixed_args(arguments)
    config = compose(options.settings)
    options.out.mkdir(parents=True, exist_ok=True)
    pack(options.out / PACK, config)
    if not options.no_wheels:
        collect_wheels(options.out / WHEELS, versions(), options.python)
    shutil.rmtree(options.out / TASKS, ignore_errors=True)
    if options.tasks is not None:
        copy_tasks(options.tasks, options.out / TASKS, size_of(options.tiny))
    (options.out / STAMP).write_text(stamp(), encoding="utf-8")
    sizes = {part.name: megabytes(part) for part in sorted(options.out.iterdir())}
    for name, size in sizes.items():
        console.say(f"  {size:6.1f} MB  {name}")
    total = sum(sizes.values())
    console.say(f"  {total:6.1f} MB  in {options.out}; at most {LIMIT} may travel")
    return int(total > LIMIT)


def copy_tasks(source: Path, target: Path, size: Size) -> None:
    """Copy only the files of the tasks that the campaign fine-tunes.

    Raises DataError with the expected names if a file is missing.
    """
    config = compose([*size.tuning, f"task.data_dir={source}"])
    for task in config.tasks.values():
        for file in itertools.chain(*(locate(config.task, task).files or {}).values()):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def versions() -> dict[str, str]:
    """Package -> the version of ``constraints.txt``."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    return {name: pins[name] for name in PACKAGES}


def collect_wheels(folder: Path, pins: dict[str, str], python: str) -> None:
    """Download wheels for this version of Python on 64-bit Linux; build the missing ones. Raises ConfigError."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    platforms = [argument for platform in _PLATFORMS for argument in ("--platform", platform)]
    ready = [f"{name}=={pin}" for name, pin in pins.items() if name not in _BUILT]
    built = [f"{name}=={pins[name]}" for name in _BUILT]
    binary = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]
    for arguments in (
        ["download", "--quiet", "--no-deps", *binary, "--dest", str(folder), *ready],
        ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), *built],
    ):
        done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise ConfigError(f"pip {arguments[0]}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")


def megabytes(path: Path) -> float:
    """Size of a file or a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


if __name__ == "__main__":
    sys.exit(main())
