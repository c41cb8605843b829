"""Words of the command line: values in any script are read, and what is wrong is said in our words."""

import sys
from pathlib import Path

import pytest
import yaml

from albert_ablate.door.app import main
from albert_ablate.door.compose import compose, compose_for_run
from albert_ablate.door.options import require_supported
from albert_ablate.door.words import parsed, readable
from albert_ablate.errors import ConfigError, RunFolderError
from albert_ablate.shipped import install_command

READ = [
    ("data.path=корпус.txt", "корпус.txt"),
    ("data.path=日本語/文.txt", "日本語/文.txt"),
    ("data.path=lr=0.1/x.txt", "lr=0.1/x.txt"),
    ("data.path=corpus (1).txt", "corpus (1).txt"),
    ("data.path=a#b.txt", "a#b.txt"),
    ("data.path=l'été.txt", "l'été.txt"),
    ("data.path=${oc.env:HOME}/корпус.txt", "${oc.env:HOME}/корпус.txt"),
    ("data.path=~/x.txt", str(Path.home() / "x.txt")),
    (r"data.path=C:\корпус\x", r"C:\корпус\x"),
    ("data.path='мой корпус, v=1.txt'", "мой корпус, v=1.txt"),
    ("labels=[positiv,négatif,中立]", ["positiv", "négatif", "中立"]),
    ("labels=[a b,[ü,c]]", ["a b", ["ü", "c"]]),
    ("task=mnli,sst2", ["mnli", "sst2"]),
    ("seed=3", 3),
    ("model.name=été", "été"),
]


@pytest.mark.parametrize(("word", "value"), READ, ids=[word for word, _ in READ])
def test_a_value_is_what_was_meant(word: str, value: object) -> None:
    (override,) = parsed([word])
    assert override.value() == value


def test_values_to_sweep_over_are_read_one_by_one() -> None:
    assert readable(["data.path=корпус.txt,b.txt"]) == ["data.path='корпус.txt',b.txt"]
    assert readable(["x=choice(é,b)"]) == ["x=choice('é',b)"]


UNCLEAR = [
    ("data.path=[draft] é.txt", "data.path='\"[draft] é.txt\"'"),
    ("data.path='abc", """'data.path="'"'"'abc"'"""),
    ("seed=0,1,", "seed='\"0,1,\"'"),
    ("seed=rnage(3)", "there is no function rnage; there are choice, range"),
    ("seed=range(a)", "range(a)"),
    ("größe=5", "größe: there is no such setting"),
    ("foo", "foo: not a setting. Settings are given as name=value"),
    ("share.all", "share.all: not a setting"),
    ("=", "not a setting"),
    ("share=[all,none]", "python run.py -m share=all,none"),
]


@pytest.mark.parametrize(("word", "said"), UNCLEAR, ids=[word for word, _ in UNCLEAR])
def test_what_cannot_be_read_is_refused_with_the_way_to_say_it(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        readable([word])
    assert said in str(caught.value)


WRONG = [
    (["warm_start.from=R"], "warm_start.from: there is no such setting. warm_start has: layers, length."),
    (["tasks.sst2.steps=1"], "tasks.sst2.steps: the run has no task sst2. Add task=sst2."),
    (["task=sst2", "tasks.sst2.step=1"], "Did you mean tasks.sst2.steps?"),
    (["optimiser.learning_rate=1"], "Did you mean optimizer.learning_rate?"),
    (["hidden=3"], "Did you mean model.hidden?"),
    (["share.all=1"], "Did you mean share=all?"),
    (["embed=64"], "embed=64: there is no such option. Did you mean embed=e64? There are: e128"),
    (["embed=e129"], "Did you mean embed=e128?"),
    (["share=attn"], "Did you mean share=attention?"),
    (["scale=laptop"], "scale=laptop: there is no such option. There are: controls, cpu"),
    (["data=my_corpus.txt"], "A file or folder is given as data=text data.path=my_corpus.txt. There are: embedded"),
    (["data=../my corpus"], "data=text data.path='../my corpus'"),
    (["embeds=e128"], "Did you mean embed? The top level has"),
    (["optimizer.lr=1"], "Did you mean optimizer.learning_rate?"),
    (["lr=1"], "Did you mean optimizer.learning_rate or scale.learning_rate?"),
    (["layer=3"], "Did you mean model.layers or warm_start.layers?"),
    (["task.tasks.sst2.steps=1"], "task has: source"),
    (["+x=1"], "x: there is no such setting"),
    (["~x"], "x: there is no such setting"),
    (["x@y=1"], "packages (@) are not used here"),
    (["share=null"], "share=null: there is no such option"),
    (["task=none_such"], "task=none_such: there is no such option"),
    (["data.path.x=3"], "data.path is one value"),
    (["+seed=1"], "Leave out the +: seed=1"),
    (["++share=all"], "share=all"),
    (["~foo"], "foo: there is no such setting"),
    (["~task"], "task cannot be left out"),
    (["share@x=all"], "packages (@) are not used here"),
    (["data.path=a,b.txt"], "data.path='\"a,b.txt\"'"),
    (["share=glob(a*)"], "python run.py -m 'share=glob(a*)'"),
    (["hydra/launcher=joblib", "hydra.launcher.n_job=2"], "Did you mean hydra.launcher.n_jobs?"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_a_wrong_name_is_refused_in_our_words(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(words)
    message = str(caught.value)
    assert said in message
    assert not any(foreign in message for foreign in ("struct", "append", "search path", "MULTIRUN"))


def test_a_fine_tuning_is_refused_in_the_same_words(tmp_path: Path) -> None:
    recorded = tmp_path / "config.yaml"
    recorded.write_text("scale: {name: demo}\n")
    for words, said in (
        (["task=nerr"], "task=nerr: there is no such option"),
        (["task.seeds=0,1"], "task.seeds=[0,1]"),
    ):
        with pytest.raises(ConfigError) as caught:
            compose_for_run(recorded, words)
        assert said in str(caught.value)
        assert "search path" not in str(caught.value)


def test_settings_of_a_run_that_this_version_lacks_are_not_the_users(tmp_path: Path) -> None:
    recorded = tmp_path / "config.yaml"
    plain = compose().as_dict()
    plain["model"]["oldkey"] = 3
    recorded.write_text(yaml.safe_dump(plain))
    with pytest.raises(RunFolderError, match=r"config.yaml: this version cannot use .* model.oldkey: .* manifest.json"):
        compose_for_run(recorded, ["task=era"])
    with pytest.raises(ConfigError, match=r"task.seeds=3"):
        compose_for_run(recorded, ["task=era", "task.seeds=3"])


SEVERAL = [
    ("seed=[0,1,2]", "For a run of each: python run.py -m seed=0,1,2"),
    ("seed=0..2", "For a run of each: python run.py -m 'seed=range(0,3)'"),
    ("batch.size=[32,64]", "For a run of each: python run.py -m batch.size=32,64"),
]


@pytest.mark.parametrize(("word", "said"), SEVERAL, ids=[word for word, _ in SEVERAL])
def test_several_values_of_a_setting_with_one_value(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([word])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra/sweeper=basic"], "own sweeper"),
        (["hydra.sweeper.max_batch_size=2"], "own sweeper"),
        (["hydra.launcher._target_=mine.Launcher"], "not by mine.Launcher"),
        (["~hydra/launcher"], "Cells can be started by basic"),
        (["hydra.job.chdir=true"], "relative paths are those of the folder where the command is given"),
        (["+hydra.job.env_set.A=1"], "hydra.job.env_set"),
        (["hydra.searchpath=[file:///x]"], "--config-dir"),
        (["hydra.mode=RUN"], "Leave one of the two out"),
        (["hydra/launcher=joblib,basic"], "one value for the whole sweep"),
        (["hydra/launcher=joblb"], "Did you mean hydra/launcher=joblib? Cells can be started by basic, joblib"),
    ],
)
def test_settings_of_hydra_that_have_no_place_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_supported(words, multirun=True)
    assert said in str(caught.value)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm"])
def test_a_launcher_that_is_not_installed(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albert_ablate.door.options.options_of", lambda group: ["basic"])
    with pytest.raises(ConfigError) as caught:
        require_supported([f"hydra/launcher={launcher}"], multirun=True)
    assert str(caught.value) == (
        f"hydra/launcher={launcher}: it is not installed. Run `pip install -e '.[launchers]'`."
    )


def test_an_extra_of_an_installed_package_is_installed_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert install_command("hub") == "pip install -e '.[hub]'"
    monkeypatch.setattr(sys.modules["albert_ablate.shipped"], "IN_CHECKOUT", False)
    assert install_command("hub") == "pip install 'albert-ablate[hub]'"


def test_other_settings_of_hydra_are_taken() -> None:
    harmless = ["hydra.verbose=true", "hydra.job.name=x", "hydra.output_subdir=h", "hydra/job_logging=default"]
    assert require_supported([*harmless, "hydra.sweep.dir=x", "hydra.sweep.subdir=y"], multirun=True)
    assert require_supported(["hydra.mode=MULTIRUN", "seed=1,2"], multirun=False)
    assert not require_supported(["hydra.run.dir=x"], multirun=False)


def test_a_file_of_settings_cannot_change_the_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "there.yaml").write_text("# @package _global_\nhydra: {job: {chdir: true}}\n")
    with pytest.raises(ConfigError, match=r"hydra\.job\.chdir=true"):
        require_supported(["+mine=there"], multirun=True, config_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["warm_start.from=R"], "warm_start has: layers"),
        (["seed=0", "-m", "hydra.job.chdir=true"], "hydra.job.chdir=true"),
        (["-m", "seed=0", "warm_start.from=R"], "warm_start has: layers"),
        (["--config-name", "mine"], "--config-dir FOLDER"),
        (["--experimental-rerun", "x"], "what continues it"),
        (["-m", "--cfg", "job"], "one of them alone"),
        (["--package", "model"], "belongs to --cfg"),
        (
            ["--cfg", "job", "--package", "optimiser"],
            "--package optimiser: there is no such group. Did you mean optimizer?",
        ),
        (["--cfg", "jop"], "--cfg/-c jop: there is no such choice. Did you mean job?"),
        (["--share", "all"], "--share: there is no such option. A setting has no dashes: share=VALUE."),
        (["--mutlirun", "seed=1"], "--mutlirun: there is no such option. Did you mean --multirun?"),
        (["hydra.run.dir=/proc/none/x"], "/proc/none"),
    ],
)
def test_run_py_says_it_in_our_words(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What Hydra would print itself, or raise; options may stand anywhere among the settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # put back afterwards
    monkeypatch.setattr("sys.argv", ["run.py", *words])
    assert main() == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_settings_that_are_shown_are_those_that_are_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A budget shorter than the preset's warm-up has a shorter warm-up."""
    monkeypatch.setattr("sys.argv", ["run.py", "--cfg", "job", "--resolve", "budget.steps=50", "embed=full"])
    assert main() == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed == compose(["budget.steps=50", "embed=full"]).as_dict()


@pytest.mark.parametrize(("package", "said"), [("embed", "size: 128\n"), ("seed", "0\n"), ("sweep", "None\n")])
def test_a_part_of_the_settings_is_shown(
    package: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py", "--cfg", "job", "--package", package])
    assert main() == 0
    assert capsys.readouterr().out == said
