"""``albert-ablate COMMAND``: every command by its name, what the machine offers, completion in bash."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from runhelpers import ROOT, one_thread, tiny_overrides
from sourcehelpers import texts
from test_commands import COMMANDS as FILES

from albert_ablate import command_line
from albert_ablate.command_line import COMMANDS, command_name, main
from albert_ablate.commands import completion, doctor
from albert_ablate.config.schema import CONF


@pytest.fixture(autouse=True)
def _words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of this process, which a command replaces."""
    monkeypatch.setattr(sys, "argv", ["pytest"])


def asked(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = one_thread() | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run([sys.executable, "-m", "albert_ablate", *words], cwd=cwd, env=environment,
                          capture_output=True, text=True, timeout=300)  # fmt: skip


def test_help_has_a_line_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    said = capsys.readouterr().out.splitlines()
    assert left.value.code == 0
    assert [line.split()[0] for line in said if line.startswith("  ") and line.split()[0] in COMMANDS] == [*COMMANDS]
    assert max(map(len, said)) < 80


def test_the_table_has_every_module_that_is_a_command() -> None:
    named = {one.module for one in COMMANDS.values()}
    files = {f"albert_ablate.{name.removeprefix('albert_ablate.')}" for name in FILES}
    assert files - {"albert_ablate.run", "albert_ablate.__main__"} <= named


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("run", "sweep")])
def test_a_commands_help_is_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: albert-ablate {name} ")


@pytest.mark.parametrize("name", sorted({one.module for one in COMMANDS.values()}))
def test_every_command_can_be_imported_under_the_name_of_the_table(name: str) -> None:
    assert callable(import_module(name).main)


def test_run_and_sweep_are_hydras(tmp_path: Path) -> None:
    shown = asked("run", *tiny_overrides(tmp_path), "--cfg", "job")
    assert "hidden: 32" in shown.stdout, shown.stderr
    refused = asked("sweep", "sweep=table55")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Did you mean sweep=table5" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["paln"], "paln: there is no such command. Did you mean plan? There are: run"),
        (["x"], "x: there is no such command. There are: run, sweep, plan"),
        ([], "Which command? There are: run"),
        (["--versoin"], "--versoin: there is no such option. Did you mean --version? Options are --help, --version."),
    ],
)
def test_another_word_is_no_command(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


# --- options and arguments of commands ------------------------------------------------------------

MISTAKES = [
    ("plan", ["seed=1", "--no-tme"], "--no-tme: there is no such option. Did you mean --no-time? Options are --help"),
    ("plan", ["seed=1", "--gpu", "h1000"], "--gpu h1000: there is no such choice. Did you mean h100? There are: a100"),
    ("plan", ["--share", "all"], "--share: there is no such option. A setting has no dashes: share=VALUE. "),
    ("plan", ["--model.layers=3", "seed=1"], "A setting has no dashes: model.layers=3."),
    ("plan", ["seed=1", "--utilisation", "x"], "--utilisation: invalid float value: 'x'. `albert-ablate plan --help`"),
    ("plan", ["seed=1", "--utilisation", "3"], "--utilisation=3.0: a share of the peak, above 0 and at most 1"),
    ("plan", [], "the following arguments are required: OVERRIDE. `albert-ablate plan --help` shows what it takes."),
    ("status", ["a", "b"], "b: one argument too many. `albert-ablate status --help` shows what it takes."),
    ("report", ["runs", "--claim", "x", "--compcat"], "Did you mean --compact?"),
    ("completion", ["fish"], "shell fish: there is no such choice."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words", "said"), MISTAKES, ids=[" ".join([n, *words]) for n, words, _ in MISTAKES])
def test_wrong_options_are_refused_in_words(
    name: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, *words]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert (printed.out, "usage:" in printed.err) == ("", False)


#: Commands that need more than one argument.
LEAST = {"export": ["x", "x"], "predict": ["x", "x"], "import": ["x", "x"], "wordnet": ["x", "x"],
         "difference": ["x", "x"], "similarity": ["x", "--text", "x"],
         "completion": ["bash"]}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_suggests_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, *LEAST.get(name, ["x"]), "--hlep"]) == 2
    assert "--hlep: there is no such option. Did you mean --help?" in capsys.readouterr().err


# --- how a command is called ----------------------------------------------------------------------


def test_in_a_checkout_a_command_is_called_by_its_file() -> None:
    assert command_name("run") == "python run.py"
    assert command_name("sweep") == "python run.py -m"
    assert command_name("completion") == "python -m albert_ablate completion"
    modules = {command_name(name).removeprefix("python -m ") for name in COMMANDS if name not in ("run", "sweep")}
    assert modules - {"albert_ablate completion"} == {*FILES} - {"run", "albert_ablate.__main__"}


def test_installed_it_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "IN_CHECKOUT", False)
    assert [command_name(name) for name in COMMANDS] == [f"albert-ablate {name}" for name in COMMANDS]


def test_no_message_names_a_command_in_another_way() -> None:
    said = [
        f"{file.relative_to(ROOT)}: {text}"
        for folder in ("albert_ablate", "analysis", "hydra_plugins")
        for file in (ROOT / folder).rglob("*.py")
        if file != ROOT / "albert_ablate" / "command_line.py"
        for text in texts(file)
        if re.search(r"python run\.py|python -m (albert_ablate|analysis)", text)
    ]
    assert said == []


# --- what the machine offers ----------------------------------------------------------------------


def report(capsys: pytest.CaptureFixture[str], folder: Path) -> dict[str, str]:
    """The doctor's facts by their names."""
    assert doctor.main([str(folder)]) == 0
    facts: dict[str, str] = {}
    for line in capsys.readouterr().out.splitlines():
        assert len(line) < 80
        name = line[:16].strip() or next(reversed(facts), "")
        facts[name] = f"{facts.get(name, '')} {line[16:]}".strip()
    return facts


def test_the_doctor_tells_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = report(capsys, tmp_path)
    assert "cores usable" in facts["processor"]
    assert facts["memory"].endswith("GB")
    assert facts["disk"].endswith(f"GB free in {tmp_path}") or "GB free" in facts["disk"]
    assert facts["a run takes"].split(",")[0] in ("cpu in bf16", "cpu in fp32", "cuda in bf16", "cuda in fp32")
    assert not any("not known" in fact for name, fact in facts.items() if name != "albert-ablate")


def test_the_doctor_says_what_a_missing_package_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "pyarrow" else object())
    facts = report(capsys, tmp_path)
    assert facts["hub"] == (
        "missing pyarrow, needed for corpora and tasks of the hub, parquet files. Run `pip install -e '.[hub]'`."
    )
    assert facts["launchers"].startswith("installed")


@pytest.mark.parametrize("where", ["torch.cpu._is_amx_tile_supported", "os.sysconf", "shutil.disk_usage"])
def test_the_doctor_goes_on_where_the_machine_hides_something(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(*_: object) -> None:
        raise OSError("no access")

    monkeypatch.setattr(f"albert_ablate.commands.doctor.{where}", hidden)
    facts = report(capsys, tmp_path)
    assert sum("not known (OSError: no access)" in fact for fact in facts.values()) >= 1
    assert "tensorflow" in facts


def test_the_doctor_knows_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {*doctor.EXTRAS} == {*extras} - {"dev"}


# --- completion -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("albert-ablate fi", ["finetune", "figures"]),
        ("albert-ablate run embed=e1", ["embed=e128", "embed=e16", "embed=e192"]),
        ("albert-ablate sweep embed=e64,e9", ["embed=e64,e96"]),
        ("albert-ablate sweep sweep=table1", ["sweep=table1", "sweep=table11", "sweep=table12", "sweep=table13"]),
        ("albert-ablate plan --no-time sweep=de", ["sweep=demo"]),
        ("albert-ablate run optimizer.beta", ["optimizer.beta1=", "optimizer.beta2="]),
        ("albert-ablate run tas", ["task.", "task=", "tasks."]),
        ("albert-ablate sweep seed=0,1 optimizer.beta", ["optimizer.beta1=", "optimizer.beta2="]),
        ("albert-ablate run embed=nothing optimizer.beta", []),  # Hydra refuses what stands before it
        ("albert-ablate finetune runs/x task=squ", ["task=squad11", "task=squad20"]),
        ("albert-ablate report ", []),
        ("albert-ablate nothing ", []),
    ],
)
def test_what_a_line_may_become(line: str, answers: list[str]) -> None:
    assert completion.answers(line) == answers


def test_every_group_is_offered() -> None:
    offered = completion.answers("albert-ablate run ")
    groups = [folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra"]
    assert {"embed=", "share=", "objective=", "method=", "scale=", "task=", "seed="} <= {*offered}
    assert not any(one.startswith("hydra") for one in offered if one != "hydra.")
    assert {f"{group}=" for group in groups} <= {*offered}


def bash(tmp_path: Path) -> Callable[[str, str], list[str]]:
    """(line, the words that bash makes of its end) -> what bash offers, by the printed function."""
    program = tmp_path / "albert-ablate"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m albert_ablate "$@"\n')
    program.chmod(0o755)

    def offered(line: str, current: str) -> list[str]:
        script = f"""
PATH="{tmp_path}:$PATH"
eval "$(albert-ablate completion bash)"
COMP_LINE={line!r} COMP_POINT={len(line)} COMP_WORDS=(albert-ablate {current!r}) COMP_CWORD=1
_albert_ablate albert-ablate {current!r} albert-ablate
printf '%s|' "${{COMPREPLY[@]}}"
complete -p albert-ablate >&2
"""
        done = subprocess.run(["bash", "--norc", "-c", script], env=one_thread() | {"PYTHONPATH": str(ROOT)},
                              capture_output=True, text=True, timeout=120)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stderr.endswith("-F _albert_ablate albert-ablate\n"), done.stderr
        return done.stdout.split("|")[:-1]

    return offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_offers_the_ends_of_words(tmp_path: Path) -> None:
    offered = bash(tmp_path)
    assert offered("albert-ablate fin", "fin") == ["finetune "]
    assert offered("albert-ablate run opti", "opti") == ["optimizer.", "optimizer="]
    assert offered("albert-ablate run optimizer=", "=") == ["adamw", "lamb"]
    assert offered("albert-ablate run optimizer=l", "l") == ["lamb "]
    assert offered("albert-ablate sweep embed=e64,e9", "e64,e9") == ["e64,e96 "]
    assert offered("albert-ablate report ru", "ru") == [""]  # nothing, so that bash offers files


def zsh(tmp_path: Path) -> Callable[[list[str]], list[str]]:
    """The words of a line -> what the printed function adds, with a space after each answer that is complete."""
    program = tmp_path / "albert-ablate"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m albert_ablate "$@"\n')
    program.chmod(0o755)

    def offered(words: list[str]) -> list[str]:
        script = f"""
PATH="{tmp_path}:$PATH"
compdef() {{ print -u2 "compdef $@"; }}
compadd() {{ local end=" "; [[ $2 == -S ]] && end="" && shift 2; shift 2; (( $# )) && print -rl -- $^@"$end"; }}
_files() {{ print files; }}
eval "$(albert-ablate completion zsh)"
words=({" ".join(map(repr, words))}) CURRENT={len(words)} PREFIX={words[-1]!r}
_albert_ablate
"""
        done = subprocess.run(["zsh", "-f", "-c", script], env=one_thread() | {"PYTHONPATH": str(ROOT)},
                              capture_output=True, text=True, timeout=120)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "compdef _albert_ablate albert-ablate\n")
        return done.stdout.splitlines()

    return offered


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh_offers_whole_words(tmp_path: Path) -> None:
    offered = zsh(tmp_path)
    assert offered(["albert-ablate", "fin"]) == ["finetune "]
    assert offered(["albert-ablate", "run", "opti"]) == ["optimizer.", "optimizer="]
    assert offered(["albert-ablate", "run", "seed=1", "optimizer=l"]) == ["optimizer=lamb "]
    assert offered(["albert-ablate", "report", ""]) == ["files"]
