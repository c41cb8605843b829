"""Folders of the commands on the rented machine, and the packages that it lacks. Needs the standard library alone."""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACK, WHEELS, TASKS, STAMP = "corpus.pack", "wheels", "tasks", "COMMIT"


@dataclass(frozen=True)
class Places:
    """Where things lie."""

    carried: Path  # what ``prepare`` wrote
    work: Path  # stays between commands: runs, caches, decisions
    out: Path  # what is brought back; may be emptied between commands

    @property
    def pack(self) -> Path:
        """The packed corpus."""
        return self.carried / PACK

    @property
    def tasks(self) -> Path:
        """Files of the fine-tuning tasks; need not be there."""
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
        """Run folders of the pilot, which choose a learning rate and are no part of the campaign."""
        return self.work / "pilot"

    @property
    def checks(self) -> Path:
        """What ``first`` found."""
        return self.work / "checks.json"

    @property
    def decisions(self) -> Path:
        """What ``first`` decided for ``campaign``."""
        return self.work / "decisions.json"

    @property
    def trace(self) -> Path:
        """The profile of some steps."""
        return self.work / "trace.json.gz"

    @property
    def journal(self) -> Path:
        """What became of each cell of the campaign."""
        return self.work / "campaign.json"

    @property
    def log(self) -> Path:
        """What the campaign and its processes said."""
        return self.work / "campaign.log"

    @property
    def packed(self) -> Path:
        """The results as files that may be brought back, renewed every minute."""
        return self.work / "packed"

    def words(self) -> list[str]:
        """The command line that names them."""
        return ["--carried", str(self.carried), "--work", str(self.work), "--out", str(self.out)]


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Of a command on the rented machine: the folders, and ``--tiny``."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.rented_gpu.{name}", description=description)
    made.add_argument("--carried", type=Path, default=ROOT / "rented", help="the folder that prepare wrote")
    made.add_argument(
        "--work", type=Path, default=os.environ.get("RENTED_WORK", "/tmp/rented-work"),
        help="a folder that stays between the commands (default: $RENTED_WORK)",
    )  # fmt: skip
    made.add_argument("--out", type=Path, default=os.environ.get("OUT"), help="what is brought back (default: $OUT)")
    made.add_argument("--tiny", action="store_true", help="the same code on a CPU, in minutes")
    return made


def places_of(options: argparse.Namespace) -> Places:
    """The folders that were given, made where they are missing."""
    if options.out is None:
        raise SystemExit("where should the results go? Set OUT, or give --out FOLDER")
    found = Places(options.carried.resolve(), options.work.resolve(), options.out.resolve())
    if not found.pack.is_file():
        raise SystemExit(f"{found.pack} is missing: write it with `python -m benchmarks.rented_gpu.prepare`")
    for folder in (found.work, found.out):
        folder.mkdir(parents=True, exist_ok=True)
    return found


def install(places: Places) -> str:
    """Unpack the wheels that were carried, once, and stamp a tree without a repository with its commit.

    Says what was done. This process and those that it starts import the packages from there, before installed ones.
    """
    site, said = places.work / "site", "no wheels carried"
    wheels = sorted((places.carried / WHEELS).glob("*.whl"))
    if wheels and not site.is_dir():
        words = ["install", "--quiet", "--no-index", "--no-deps", "--target", str(site), *map(str, wheels)]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    if site.is_dir():
        sys.path.insert(0, str(site))
        said = f"{len(wheels)} wheels in {site}"
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(site), *([before] if before else [])])
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(places.work / "inductor"))
    stamp = places.carried / STAMP
    if stamp.is_file() and not (ROOT / ".git").exists():
        (ROOT / STAMP).write_bytes(stamp.read_bytes())
    return said
