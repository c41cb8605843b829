"""What contributors are promised beside the code: the same checks everywhere, and one version."""

import re
import tomllib

import yaml
from packaging.specifiers import SpecifierSet
from runhelpers import ROOT


def test_the_hooks_before_a_commit_are_the_checks_of_make() -> None:
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert recipe is not None
    checks = [line.strip().removeprefix("$(BIN)/").replace(" .", "") for line in recipe[1].splitlines()]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = [hook["entry"].removeprefix(".venv/bin/").replace(" --fix", "") for hook in hooks]
    assert entries == [check.replace(" --check", "") for check in checks]


def test_the_workflow_runs_every_supported_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    supported = [f"3.{minor}" for minor in range(30) if f"3.{minor}" in SpecifierSet(project["requires-python"])]
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == supported


def test_the_citation_names_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
