"""The worked examples in docstrings print what they say."""

import doctest
from types import ModuleType

import pytest

from albert_ablate.data import masking, segments


@pytest.mark.parametrize(
    ("module", "function"), [(masking, "_place_spans"), (segments, "_cut_runs")], ids=["masking", "segments"]
)
def test_worked_examples_print_what_the_code_computes(module: ModuleType, function: str) -> None:
    examples = {test.name.rpartition(".")[2]: test for test in doctest.DocTestFinder().find(module) if test.examples}
    assert function in examples
    for example in examples.values():
        assert doctest.DocTestRunner().run(example).failed == 0, example.name
