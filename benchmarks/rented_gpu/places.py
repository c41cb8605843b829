"""Folders and files of the commands on the rented machine, and the packages it lacks. Standard library only."""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACK, WHEELS, TASKS, STAMP = "corpus.pack", "wheels", "tasks", "COMMIT"


@dataclass(frozen=True)
class Folders:
    """The three folders of the commands, and the files in them."""

    carried: Path  # written by ``prepare``
    work: Path  # kept between commands: runs, caches, decisions
    out: Path  # brought back; may be emptied between commands

    @property
    def pack(self) -> Path:
        """The packed corpus."""
        return self.carried / PACK

    @property
    def tasks(self) -> Path:
        """Files of the fine-tuning tasks; this folder may be missing."""
        return self.carried / TASKS

    @property
    def cache(self) -> Path:
        """Cache of the runs."""
        return self.work / "cache"

    @property
    def runs(self) -> Path:
        """Run folders of the campaign."""
        return self.work / "runs"

    @property
    def pilot(self) -> Path:
        """Run folders of the pilot, which chooses the learning rate and is not part of the campaign."""
        return self.work / "pilot"

    @property
    def checks(self) -> Path:
        """The results of ``first``."""
        return self.work / "checks.json"

    @property
    def decisions(self) -> Path:
        """The decisions of ``first`` for ``campaign``."""
        return self.work / "decisions.json"

    @property
    def trace(self) -> Path:
        """The profile of three steps."""
        return self.work / "trace.json.gz"

    @property
    def journal(self) -> Path:
        """The state of each cell of the campaign."""
        return self.work / "campaign.json"

    @property
    def log(self) -> Path:
        """Output of the campaign and its processes."""
        return self.work / "campaign.log"

    @property
    def packed(self) -> Path:
        """The results as files to bring back, renewed every minute."""
        return self.work / "packed"

    def arguments(self) -> list[str]:
        """The command-line arguments that name these folders."""
        return ["--carried", str(self.carried), "--work", str(self.work), "--out", str(self.out)]


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of a command on the rented machine, with the folders and ``--tiny``."""
    command = argparse.ArgumentParser(prog=f"python -m benchmarks.rented_gpu.{name}", description=description)
    command.add_argument("--carried", type=Path, default=ROOT / "rented", help="the folder that prepare wrote")
    command.add_argument(
        "--work", type=Path, default=os.environ.get("RENTED_WORK", "/tmp/rented-work"),
        help="a folder that is kept between the commands (default: $RENTED_WORK)",
    )  # fmt: skip
    command.add_argument("--out", type=Path, default=os.environ.get("OUT"), help="folder to bring back (default: $OUT)")
    command.add_argument("--tiny", action="store_true", help="the same code on a CPU, in minutes")
    return command


def folders_of(options: argparse.Namespace) -> Folders:
    """The given folders; missing ones are made. Exits if ``--out`` or the packed corpus is missing."""
    if options.out is None:
        raise SystemExit("The folder for the results is not known. Set OUT, or give --out FOLDER.")
    folders = Folders(options.carried.resolve(), options.work.resolve(), options.out.resolve())
    if not folders.pack.is_file():
        raise SystemExit(f"{folders.pack} is missing. Write it with `python -m benchmarks.rented_gpu.prepare`")
    for folder in (folders.work, folders.out):
        folder.mkdir(parents=True, exist_ok=True)
    return folders


def install(folders: Folders) -> str:
    """Install the carried wheels once, and write the commit into a tree without a repository.

    Returns what was installed. This process and its child processes import these packages before installed ones.
    """
    site, installed = folders.work / "site", "no wheels carried"
    wheels = sorted((folders.carried / WHEELS).glob("*.whl"))
    if wheels and not site.is_dir():
        arguments = ["install", "--quiet", "--no-index", "--no-deps", "--target", str(site), *map(str, wheels)]
        subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)
    if site.is_dir():
        sys.path.insert(0, str(site))
        installed = f"{len(wheels)} wheels in {site}"
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(site), *([before] if before else [])])
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folders.work / "inductor"))
    stamp = folders.carried / STAMP
    if stamp.is_file() and not (ROOT / ".git").exists():
        (ROOT / STAMP).write_bytes(stamp.read_bytes())
    return installed
