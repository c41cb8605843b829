"""What this machine offers a run: ``python -m albert_ablate.doctor``."""

import os
import platform
import shutil
import textwrap
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from albert_ablate.arguments import Parser
from albert_ablate.command_line import program
from albert_ablate.console import command, say
from albert_ablate.door.compose import compose
from albert_ablate.errors import RunFolderError
from albert_ablate.record import provenance
from albert_ablate.shipped import VERSION, install_command
from albert_ablate.training.machine import Machine
from albert_ablate.training.precision import gpu_multiplies_bf16

#: Extra of ``pyproject.toml`` -> the modules that it installs, and what they are needed for.
EXTRAS = {
    "hub": (("datasets", "pyarrow"), "corpora and tasks of the hub, parquet files"),
    "huggingface": (("tokenizers", "huggingface_hub"), "word pieces, tokenizer.json, models of the hub"),
    "launchers": (
        ("hydra_plugins.hydra_joblib_launcher", "hydra_plugins.hydra_submitit_launcher"),
        "sweeps in several processes or on a cluster",
    ),
    "ner": (("seqeval",), "task=ner"),
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "export --onnx, benchmarks.latency with ONNX Runtime"),
    "ray": (("ray",), "sweeps on a Ray cluster"),
    "tensorboard": (("tensorboard",), "tracker=tensorboard"),
    "tensorflow": (("tensorflow",), "import of ALBERT's TensorFlow release"),
}
_WIDTH, _INDENT = 79, 16


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each fact; returns 0 even if a package is missing."""
    parser = Parser(prog=program("doctor"), description="What this machine offers a run.")
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), help="folder for the runs, whose disk is checked (default: .)"
    )
    folder = parser.parse_args(arguments).folder
    if not folder.is_dir():
        raise RunFolderError(f"{folder}: there is no such folder.")
    facts: dict[str, Callable[[], str]] = {
        "albert-ablate": _code,
        "python": lambda: f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": lambda: str(torch.__version__),
        "processor": _processor,
        "memory": _memory,
        "bf16": _bf16,
        "GPU": _gpus,
        "a run takes": _machine,
        "disk": lambda: f"{shutil.disk_usage(folder).free / 1e9:,.0f} GB free in {folder.resolve()}",
    }
    for name, fact in facts.items():
        _line(name, _answer(fact))
    say("\noptional packages")
    for extra, (modules, need) in EXTRAS.items():
        _line(extra, _installed(extra, modules, need))
    return 0


def _line(name: str, text: str) -> None:
    gap = " " * _INDENT
    say(textwrap.fill(text, _WIDTH, initial_indent=f"{name:<{_INDENT}}", subsequent_indent=gap, break_on_hyphens=False))


def _answer(fact: Callable[[], str]) -> str:
    """The fact, or why it is not known, so that an error in one fact does not hide the others."""
    try:
        return fact()
    except Exception as error:
        return f"not known ({type(error).__name__}: {error})"


def _code() -> str:
    source = provenance.commit()
    if source["commit"] is None:
        return f"{VERSION}, commit not known: {source['unknown']}"
    return f"{VERSION}, commit {source['commit'][:12]}{', changed since' if source['dirty'] else ''}"


def _processor() -> str:
    hardware, usable = provenance.hardware(torch.device("cpu")), provenance.usable_cores()
    return f"{hardware['processor']}, {usable} of {hardware['cores']} cores usable"


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:,.1f} GB"


def _bf16() -> str:
    """The instructions of this processor that multiply bf16."""
    instructions = {"AVX-512": torch.cpu._is_avx512_bf16_supported(), "AMX": torch.cpu._is_amx_tile_supported()}
    supported = " and ".join(name for name, is_supported in instructions.items() if is_supported)
    return f"by the processor's {supported}" if supported else "not by the processor, which computes in fp32"


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use"
    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    named = ", ".join(f"{card.name} with {card.total_memory / 1e9:,.0f} GB" for card in cards)
    return f"{named}; {'bf16' if gpu_multiplies_bf16() else 'no bf16'}"


def _machine() -> str:
    """The device and precision that ``auto`` stands for."""
    machine = Machine.of(compose().runtime)
    return f"{machine.device.type} in {machine.precision}, unless runtime.device or runtime.precision say otherwise"


def _installed(extra: str, modules: Sequence[str], need: str) -> str:
    missing = [name.rpartition(".")[2] for name in modules if find_spec(name) is None]
    if not missing:
        return f"installed, for {need}"
    return f"missing {', '.join(missing)}, needed for {need}. Run `{install_command(extra)}`."
