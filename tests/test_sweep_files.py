"""Every sweep's cells against the paper's rows, and what the command line makes of them."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from albert_ablate.config.identity import settings_digest
from albert_ablate.config.schema import RunConfig
from albert_ablate.door.cells import expand, read_command_line
from albert_ablate.errors import ConfigError
from albert_ablate.methods.parents import warm_start
from albert_ablate.methods.teacher import teacher_of
from albert_ablate.sweeping.cells import Cell, labels
from albert_ablate.sweeping.definition import SWEEPS, load, sweep_names
from albert_ablate.training.budget import step_flops

BASE, LARGE, XLARGE, XXLARGE = (768, 12), (1024, 24), (2048, 24), (4096, 12)


def cells(*words: str) -> list[Cell]:
    return expand(read_command_line(list(words)))


def shape(cell: Cell) -> tuple[int, int, int, str, str]:
    c = cell.config
    assert c.model.heads * 64 == c.model.hidden
    assert c.model.intermediate == 4 * c.model.hidden
    return (c.model.hidden, c.model.layers, c.embed.size, c.share.strategy.value, c.objective.name.value)


#: (H, L, E, sharing, objective) of the rows the paper prints, in the order of the cells.
PAPER = {
    "table1": [
        (768, 12, 768, "none", "sop"), (1024, 24, 1024, "none", "sop"), (768, 12, 128, "all", "sop"),
        (1024, 24, 128, "all", "sop"), (2048, 24, 128, "all", "sop"), (4096, 12, 128, "all", "sop"),
    ],
    "table2": [
        (768, 12, 768, "none", "sop"), (1024, 24, 1024, "none", "sop"), (768, 12, 128, "all", "sop"),
        (1024, 24, 128, "all", "sop"), (2048, 24, 128, "all", "sop"), (4096, 12, 128, "all", "sop"),
    ],
    "table3": [(768, 12, e, s, "sop") for s in ("none", "all") for e in (64, 128, 256, 768)],
    "table4": [(768, 12, e, s, "sop") for e in (768, 128) for s in ("all", "attention", "ffn", "none")],
    "table5": [(768, 12, 128, "all", o) for o in ("none", "nsp", "sop")],
    "table6": [(1024, 24, 1024, "none", "sop"), (4096, 12, 128, "all", "sop")],
    "table7": [(768, 12, 128, "all", "sop")] * 2,
    "table8": [(4096, 12, 128, "all", "sop")] * 2,
    "table11": [(1024, layers, 128, "all", "sop") for layers in (1, 3, 6, 12, 24, 48)],
    "table12": [(hidden, 3, 128, "all", "sop") for hidden in (1024, 2048, 4096, 6144)],
    "table13": [(4096, layers, 128, "all", "sop") for layers in (12, 24)],
    "figure1": [(1024, 24, 1024, "none", "sop"), (1024, 24, 128, "all", "sop")],
    "figure2": [(4096, 12, 128, "all", "sop")] * 4,
}  # fmt: skip
#: Of ELECTRA's sweeps: method, source and width of the generator, what both networks share, and the part of the FLOPs
#: of masked LM's steps (None: equal steps).
ELECTRA: dict[str, list[tuple[str, str, float, str, float | None]]] = {
    "electra_table5": [
        (method, "learned", 0.25, "embeddings", 1.0)
        for method in ("mlm", "replace_mlm", "all_tokens_mlm", "electra_15", "electra")
    ],
    "electra_generators": [
        ("electra", "unigram", 0.25, "embeddings", None),
        *(("electra", "learned", width, "embeddings", None) for width in (0.125, 0.25, 0.5, 1.0)),
    ],
    "electra_two_stage": [
        ("mlm", "learned", 0.25, "embeddings", 1.0), ("electra_two_stage", "learned", 1.0, "none", 0.5),
        ("electra", "learned", 0.25, "embeddings", 1.0),
    ],
    "electra_tying": [("electra", "learned", 1.0, tie, None) for tie in ("none", "embeddings", "all")],
}  # fmt: skip
#: Of the sweeps of distillation: method, layers as a part of the base model's, the losses' weights, first weights.
_DISTILBERT = ("distilbert", 1 / 2, (5.0, 2.0, 1.0), "teacher")
#: Sweep of MobileBERT -> its cells: method, H, W, heads, networks of a layer, norm, activation, transfer and its weight
#: of attention.
_TAUGHT = ("mobilebert", 192, 48, 4, 4, "layer_norm", "gelu_tanh")
MOBILEBERT: dict[str, list[tuple[object, ...]]] = {
    "mobilebert_table2": [
        ("mlm", hidden, inside, heads, 1, "layer_norm", "gelu_tanh", None, None)
        for hidden, inside, heads in (
            (384, 384, 16), (288, 384, 16), (192, 384, 16), (144, 384, 16), (96, 384, 16), (192, 384, 4), (192, 192, 4),
            (192, 96, 4), (192, 48, 4),
        )
    ],
    "mobilebert_table3": [
        ("mlm", 192, inside, heads, networks, "layer_norm", "gelu_tanh", None, None)
        for inside, heads, networks in ((72, 6, 1), (60, 5, 2), (48, 4, 4), (36, 3, 8))
    ],
    "mobilebert_table_operational": [
        *(("mobilebert", 192, 48, 4, 4, norm, activation, "progressive", 1.0)
          for norm in ("layer_norm", "no_norm") for activation in ("gelu_tanh", "relu")),
        ("mlm", 192, 48, 4, 4, "layer_norm", "gelu_tanh", None, None),
        ("mlm", 192, 48, 4, 4, "no_norm", "relu", None, None),
    ],
    "mobilebert_table_transfer": [
        ("mlm", 192, 384, 4, 1, "layer_norm", "gelu_tanh", None, None),
        ("mlm", 192, 48, 4, 4, "layer_norm", "gelu_tanh", None, None),
        (*_TAUGHT, "none", 1.0), (*_TAUGHT, "progressive", 0.0), (*_TAUGHT, "progressive", 1.0),
        (*_TAUGHT, "joint", 1.0), (*_TAUGHT, "auxiliary", 1.0),
    ],
}  # fmt: skip
#: Sweep of causal LM -> its cells: method, H, L, E, share, norm of the model.
CAUSAL = {
    "gpt_sizes": [
        ("causal", 64, 3, 64, "none", "pre"), ("causal", 128, 3, 128, "none", "pre"),
        ("causal", 192, 3, 192, "none", "pre"), ("causal", 256, 3, 256, "none", "pre"),
        ("causal", 192, 1, 192, "none", "pre"),
    ],
    "causal_vs_masked": [("mlm", 192, 3, 192, "none", "post")] * 3 + [("causal", 192, 3, 192, "none", "post")] * 4,
    "gpt_switches": [
        ("causal", 192, 6, 192, "none", "post"), ("causal", 192, 6, 192, "none", "post"),
        ("causal", 192, 6, 192, "none", "pre"), ("causal", 192, 6, 192, "none", "pre"),
        ("causal", 192, 6, 192, "none", "post"), ("causal", 192, 6, 192, "none", "pre"),
        ("mlm", 192, 6, 192, "none", "post"), ("mlm", 192, 6, 192, "none", "pre"),
    ],
    "causal_sharing": [
        ("causal", 192, 3, 192, "none", "post"), ("causal", 192, 3, 192, "all", "post"),
        ("mlm", 192, 3, 192, "none", "post"), ("mlm", 192, 3, 192, "all", "post"),
        ("causal", 192, 3, 32, "all", "post"),
    ],
}  # fmt: skip
#: Sweep of BigBird -> its cells: attention, window, random and global blocks, tokens.
_OFF = (3, 3, 2)  # as they are where attention is full
BLOCKS = {
    "bigbird_table1": [
        ("full", *_OFF, 1024), ("bigbird", 3, 3, 2, 1024), ("bigbird", 3, 3, 0, 1024), ("bigbird", 3, 0, 2, 1024),
        ("bigbird", 3, 0, 0, 1024), ("bigbird", 0, 3, 0, 1024),
    ],
    "bigbird_length": [
        (attention, *_OFF, tokens) for attention in ("full", "bigbird") for tokens in (512, 1024, 2048)
    ],
}  # fmt: skip
DISTILLATION: dict[str, list[tuple[str, float, tuple[float, float, float], str]]] = {
    "distilbert_table4": [
        ("mlm", 1, (5.0, 2.0, 1.0), "random"), ("mlm", 1 / 2, (5.0, 2.0, 1.0), "random"), _DISTILBERT,
        ("distilbert", 1 / 2, (0.0, 2.0, 1.0), "teacher"), ("distilbert", 1 / 2, (5.0, 2.0, 0.0), "teacher"),
        ("distilbert", 1 / 2, (5.0, 0.0, 1.0), "teacher"), ("distilbert", 1 / 2, (5.0, 2.0, 1.0), "random"),
        ("distilbert", 1 / 2, (0.0, 2.0, 0.0), "teacher"),
    ],
    "distilbert": [
        ("mlm", 1, (5.0, 2.0, 1.0), "random"), ("mlm", 1 / 2, (5.0, 2.0, 1.0), "random"),
        ("mlm", 1 / 3, (5.0, 2.0, 1.0), "random"), _DISTILBERT,
        ("distilbert", 1 / 3, (5.0, 2.0, 1.0), "teacher"),
    ],
}  # fmt: skip
#: Of TinyBERT's sweeps: weights (embedding, layers, attention) and layers of general distillation, then first weights,
#: teacher, losses and layers of task distillation, its targets, and copies of the augmentation.
_ALL = (1.0, 1.0, 1.0)
_TINY: dict[str, list[tuple[object, ...]]] = {
    "tinybert_table2": [
        (_ALL, "uniform", "pretrained", "pretraining", _ALL, "uniform", "soft", 20),
        (_ALL, "uniform", "random", "pretraining", _ALL, "uniform", "soft", 20),
        (_ALL, "uniform", "pretrained", None, _ALL, "uniform", "soft", 20),
        (_ALL, "uniform", "pretrained", "pretraining", _ALL, "uniform", "soft", 0),
    ],
    "tinybert_table3": [
        (weights, "uniform", "pretrained", "pretraining", weights, "uniform", target, 20)
        for weights, target in (
            (_ALL, "soft"), ((0.0, 1.0, 1.0), "soft"), (_ALL, "gold"), ((1.0, 0.0, 0.0), "soft"),
            ((1.0, 1.0, 0.0), "soft"), ((1.0, 0.0, 1.0), "soft"),
        )
    ],
    "tinybert_table4": [
        (_ALL, layers, "pretrained", "pretraining", _ALL, layers, "soft", 20) for layers in ("uniform", "top", "bottom")
    ],
}  # fmt: skip
#: The paper's parameters in millions where the printed number is the counted one (Tables 1, 3 and 4), rounded or cut.
MILLIONS = {
    "table3": [87, 89, 93, 108, 10, 12, 16, 31],
    "table4": [31, 83, 57, 108, 12, 64, 38, 89],
}


@pytest.mark.parametrize("name", PAPER)
def test_the_cells_are_the_papers_rows(name: str) -> None:
    found = [cell for cell in cells(f"sweep={name}", "scale=paper") if cell.rows]
    assert [shape(cell) for cell in found] == PAPER[name]
    steps = {"table8": [1_000_000] * 2, "figure2": [550_000] * 2 + [1_500_000] * 2}
    assert [c.config.budget.steps for c in found] == steps.get(name, [125_000] * len(found))
    assert all(c.config.batch.size == 4096 and c.config.pairs.max_length == 512 for c in found)


@pytest.mark.parametrize("name", MILLIONS)
def test_the_cells_have_the_papers_parameters(name: str) -> None:
    for cell, printed in zip(cells(f"sweep={name}", "scale=paper"), MILLIONS[name], strict=True):
        count = cell.config.architecture().parameters()
        assert min(abs(n / 1e6 - printed) for n in (count.encoder, count.with_pooler, count.with_heads)) < 1


def test_what_else_tells_the_rows_apart() -> None:
    assert [c.config.data.name for c in cells("sweep=table7", "scale=paper")] == ["wiki_books", "wiki_books_more"]
    assert [c.config.model.hidden_dropout for c in cells("sweep=table8", "scale=paper")] == [0.1, 0.0]
    assert [(c.config.budget.unit, c.config.budget.seconds) for c in cells("sweep=table6", "scale=paper")] == [
        ("seconds", 32 * 3600.0)
    ] * 2
    figure = [(c.config.data.name, c.config.model.attention_dropout) for c in cells("sweep=figure2", "scale=paper")]
    more = "wiki_books_more"
    assert figure == [("wiki_books", 0.1), (more, 0.1), (more, 0.1), (more, 0.0)]


@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize("name", ELECTRA)
def test_electras_cells(name: str, scale: str) -> None:
    found = [cell for cell in cells(f"sweep={name}", f"scale={scale}") if cell.rows]
    steps = {"cpu": 7000, "paper": 125_000}[scale]
    baseline = cells("method=mlm", "embed=full", "share=none", "objective=none", f"scale={scale}")[0].config
    whole = step_flops(baseline) * steps
    described = [
        (
            str(c.method.name), c.method.generator, c.method.generator_width, c.method.tie,
            None if c.budget.unit == "steps" else c.budget.amount() / whole,
        )
        for c in (cell.config for cell in found)
    ]  # fmt: skip
    for ours, wanted in zip(described, ELECTRA[name], strict=True):
        assert ours[:4] == wanted[:4]
        assert ours[4] == (None if wanted[4] is None else pytest.approx(wanted[4], rel=1e-4))
    assert all(cell.config.budget.steps == steps and cell.config.masking.max_ngram == 1 for cell in found)
    assert {shape(cell)[2:] for cell in found} == {(found[0].config.model.hidden, "none", "none")}


def test_electras_union_runs_a_shared_cell_once() -> None:
    found = cells("sweep=electra", "scale=cpu")
    assert len(found) == 14, "16 rows; three of them twice, and the generator of the two stages"
    assert [cell.config.method.name for cell in found if not cell.rows] == ["mlm"]
    both = [cell for cell in found if cell.rows == ("electra_table5", "electra_two_stage")]
    assert [cell.config.method.name for cell in both] == ["mlm", "electra"]


def test_half_of_the_compute_goes_to_each_stage() -> None:
    first, second = cells("sweep=electra_two_stage", "scale=cpu", "method=electra_two_stage")
    assert not first.rows
    assert first.config.budget == second.config.budget
    half = cells("sweep=electra_table5", "scale=cpu", "budget.steps=3500")[0].config.budget.flops
    assert half == pytest.approx(second.config.budget.flops, rel=1e-4)


@pytest.mark.parametrize(("scale", "layers"), [("cpu", 6), ("gpu", 6), ("paper", 12)])
@pytest.mark.parametrize("name", DISTILLATION)
def test_the_cells_of_distilbert(name: str, scale: str, layers: int) -> None:
    found = [cell.config for cell in cells(f"sweep={name}", f"scale={scale}")]
    described = [
        (
            str(c.method.name), c.model.layers / layers,
            (c.method.kl_weight, c.method.mlm_weight, c.method.cosine_weight), c.method.start,
        )
        for c in found
    ]  # fmt: skip
    assert described == DISTILLATION[name], "the teacher is a cell of the sweep, and not trained a second time"
    assert {(c.share.strategy, c.objective.name, c.embed.size) for c in found} == {
        ("none", "none", found[0].model.hidden)
    }
    assert [c.method.token_types for c in found] == [c.model.layers == layers for c in found]
    for config in (c for c in found if c.method.name == "distilbert"):
        assert settings_digest(teacher_of(config).config) == settings_digest(found[0])


@pytest.mark.parametrize("name", _TINY)
def test_the_cells_of_tinybert(name: str) -> None:
    found = cells(f"sweep={name}", "scale=cpu", "task=word_order")
    teacher, *students = [cell.config for cell in found]
    assert (str(teacher.method.name), teacher.model.layers) == ("mlm", 6)
    described: list[tuple[object, ...]] = []
    for c in students:
        m, d = c.method, c.task.distil
        described.append(
            (
                (m.embedding_weight, m.hidden_weight, m.attention_weight), m.layer_map, c.task.start, d.teacher,
                (d.embedding_weight, d.hidden_weight, d.attention_weight), d.layer_map, d.predictions,
                c.task.augment.copies,
            )
        )  # fmt: skip
        assert (str(m.name), c.model.layers, c.task.head) == ("tinybert", 2, "relu")
        assert settings_digest(teacher_of(c).config) == settings_digest(teacher)
    assert sorted(described, key=repr) == sorted(_TINY[name], key=repr), "cells of one run are beside each other"


def test_general_distillation_beside_masked_lm() -> None:
    found = cells("sweep=tinybert_table7", "scale=cpu", "task=word_order")
    described = [(str(c.method.name), c.model.layers, c.task.distil.teacher) for c in (cell.config for cell in found)]
    assert sorted(described, key=repr) == [
        ("mlm", 2, None), ("mlm", 6, None), ("tinybert", 2, "pretraining"), ("tinybert", 2, None),
    ]  # fmt: skip


@pytest.mark.parametrize("name", CAUSAL)
def test_the_cells_of_causal_lm(name: str) -> None:
    more = ["task=word_order"] if name == "causal_vs_masked" else []
    configs = [cell.config for cell in cells(f"sweep={name}", "scale=cpu", *more)]
    described = [
        (str(c.method.name), c.model.hidden, c.model.layers, c.embed.size, str(c.share.strategy), c.model.norm)
        for c in configs
    ]
    assert described == CAUSAL[name]
    assert len({settings_digest(config) for config in configs}) == len(configs) - 4 * (name == "causal_vs_masked")


@pytest.mark.parametrize("name", BLOCKS)
def test_the_cells_of_bigbird(name: str) -> None:
    configs = [cell.config for cell in cells(f"sweep={name}", "scale=long") if cell.rows]  # without the parent
    described = [
        (str(c.attention.name), c.attention.window, c.attention.random, c.attention.global_blocks, c.pairs.max_length)
        for c in configs
    ]
    assert described == BLOCKS[name]
    assert {c.batch.size * c.pairs.max_length for c in configs} == {4096}
    assert len({settings_digest(config) for config in configs}) == len(configs)
    for config in configs:
        pattern = config.architecture().blocks
        assert pattern is None or not pattern.is_full(config.pairs.max_length)
    parents = {settings_digest(parent.config) for config in configs for parent in warm_start(config)}
    assert len(parents) == (name == "bigbird_length")


@pytest.mark.parametrize("name", MOBILEBERT)
def test_the_cells_of_mobilebert(name: str) -> None:
    configs = [cell.config for cell in cells(f"sweep={name}", "scale=cpu")]
    described = []
    for c in configs:
        m, taught = c.model, c.method.name.transfers
        shape = (str(c.method.name), m.hidden, m.block_width, m.heads, m.feed_forwards, m.norm_type, m.activation)
        described.append((*shape, c.method.transfer if taught else None, c.method.map_weight if taught else None))
        assert (m.layers, m.intermediate, c.embed.size) == (6, 4 * c.attention_width, 48)
        assert c.block.type.has_bottlenecks
    own = [row for row in described if row in MOBILEBERT[name]]
    assert own == MOBILEBERT[name]
    teachers = len(described) - len(own)
    assert teachers == (name == "mobilebert_table_operational"), "the teacher of the other is a cell of its sweep"


def test_the_union_of_distillation_trains_one_teacher() -> None:
    found = cells("sweep=distillation", "scale=cpu")
    assert [cell.config.model.layers for cell in found].count(6) == 1
    pretrained = {settings_digest(cell.config) for cell in cells("sweep=distillation", "scale=cpu", "task=word_order")}
    assert len(pretrained) == len(found), "the steps of TinyBERT's procedure share one pretraining"


def test_an_amount_on_the_command_line_replaces_that_of_the_sweep() -> None:
    assert {c.config.budget.flops for c in cells("sweep=electra_table5", "scale=cpu", "budget.flops=1e12")} == {1e12}
    assert {c.config.budget.seconds for c in cells("sweep=table6", "scale=cpu", "budget.seconds=10")} == {10}


def test_every_file_is_covered_here() -> None:
    assert set(sweep_names()) == set(PAPER) | set(ELECTRA) | set(DISTILLATION) | set(_TINY) | {
        "paper",
        "demo",
        "cpu",
        "controls",
        "electra",
        "electra_demo",
        "distillation",
        "distil_demo",
        "causal",
        "causal_demo",
        "shapes_demo",
        *CAUSAL,
        *BLOCKS,
        *MOBILEBERT,
        "tinybert_table7",
        "quest",
        "quest_demo",
        "knowledge",
        "continued",
    }
    assert {file.name for file in SWEEPS.iterdir() if not file.name.startswith("_")} == {
        f"{n}.yaml" for n in sweep_names()
    }


def test_the_union_runs_a_shared_cell_once() -> None:
    found = cells("sweep=paper", "scale=paper")
    trained = [name for name in PAPER if name != "table1"]
    assert len(found) == 37
    rows = {name: [shape(c) for c in found if name in c.rows] for name in trained}
    assert {name: sorted(r) for name, r in rows.items()} == {name: sorted(PAPER[name]) for name in trained}
    base = next(c for c in found if shape(c) == (768, 12, 128, "all", "sop") and c.config.budget.steps == 125_000)
    assert base.rows == ("table2", "table3", "table4", "table5", "table7")


@pytest.mark.parametrize("scale", ["demo", "cpu", "gpu", "paper"])
@pytest.mark.parametrize(
    "name",
    sorted(
        [
            *PAPER,
            *ELECTRA,
            *DISTILLATION,
            *_TINY,
            "tinybert_table7",
            "quest",
            "knowledge",
            *CAUSAL,
            *BLOCKS,
            *MOBILEBERT,
        ]
    ),
)
def test_every_sweep_composes_with_every_scale(name: str, scale: str) -> None:
    found = cells(f"sweep={name}", f"scale={scale}")
    assert found
    assert len(set(labels(found))) == len(found)
    for cell in found:
        again = cells(*[word for word in cell.overrides if not word.startswith("sweep=")])
        assert again[-1].config.architecture() == cell.config.architecture()
        assert settings_digest(again[-1].config) == settings_digest(cell.config)


def test_the_embedding_axis_follows_the_hidden_width() -> None:
    sizes = {s: [c.config.embed.size for c in cells("sweep=table3", f"scale={s}", "share=all")] for s in ("cpu", "gpu")}
    assert sizes == {"cpu": [16, 32, 64, 192], "gpu": [48, 96, 192, 576]}
    assert [c.config.embed.size for c in cells("sweep=table3", "model=mini", "share=all")] == [32, 64, 128, 384]


def test_sizes_follow_the_base_model() -> None:
    found = [(c.config.model.name, *shape(c)[:2]) for c in cells("sweep=table2", "scale=cpu", "share=all")]
    assert found == [
        ("nano", 192, 3), ("nano-large", 256, 6), ("nano-xlarge", 512, 6), ("nano-xxlarge", 1024, 3),
    ]  # fmt: skip


def test_the_depths_start_from_the_next_shallower() -> None:
    found = cells("sweep=table11", "scale=paper")
    assert [c.config.warm_start.layers for c in found] == [
        (), (1,), (1, 3), (1, 3, 6), (1, 3, 6, 12), (1, 3, 6, 12, 24),
    ]  # fmt: skip
    for before, cell in pairwise(found):
        assert [parent.config for parent in warm_start(cell.config)] == [before.config]


def test_a_sweep_brings_the_cells_that_its_warm_starts_need() -> None:
    found = cells("sweep=table11", "scale=paper", "model.layers=6")
    assert [(c.config.model.layers, c.rows) for c in found] == [(1, ()), (3, ()), (6, ("table11",))]


def test_depths_that_round_alike_are_one_cell() -> None:
    assert [c.config.model.layers for c in cells("sweep=table11", "scale=cpu")] == [1, 2, 3, 6, 12]


def test_the_laptop_sweep() -> None:
    found = cells("sweep=cpu")
    assert len(found) == 14 * 3
    assert [c.config.seed for c in found] == [0] * 14 + [1] * 14 + [2] * 14
    assert {c.config.scale.name for c in found} == {"cpu"}


def test_seeds_multiply_and_come_last_to_change() -> None:
    found = cells("sweep=table5", "scale=demo", "seed=3,4")
    assert [(c.config.seed, c.config.objective.name) for c in found] == [
        (s, o) for s in (3, 4) for o in ("none", "nsp", "sop")
    ]
    assert len(cells("sweep=table5", "seed=range(5)")) == 15


def test_a_swept_key_is_narrowed() -> None:
    found = cells("sweep=table4", "scale=paper", "share=all,ffn", "embed=e128")
    assert [shape(c)[2:4] for c in found] == [(128, "all"), (128, "ffn")]
    assert [shape(c)[:2] for c in cells("sweep=table2", "scale=paper", "model=large")] == [LARGE, LARGE]
    deep = cells("sweep=table11", "scale=paper", "model.layers=3,48")
    assert [c.config.model.layers for c in deep if c.rows] == [3, 48]  # the others are what 48 layers start from
    assert [c.config.model.hidden_dropout for c in cells("sweep=table8", "model.hidden_dropout=0")] == [0.0]


def test_a_constant_key_is_replaced() -> None:
    assert {c.config.objective.name.value for c in cells("sweep=table3", "objective=nsp")} == {"nsp"}
    assert {c.config.budget.steps for c in cells("sweep=demo", "budget.steps=7", "budget.warmup_steps=1")} == {7}
    assert {c.config.scale.name for c in cells("sweep=demo", "scale=cpu")} == {"cpu"}


@pytest.mark.parametrize(
    ("words", "setting", "given", "other", "readers"),
    [
        (["sweep=electra_table5"], "method.generator_width", 0.5, 0.25, lambda c: c.method.name.corrupts),
        (["sweep=distilbert"], "method.kl_temperature", 3.0, 2.0, lambda c: c.method.name.distils),
        (["sweep=bigbird_table1", "scale=long"], "attention.block", 32, 64, lambda c: c.attention.name.in_blocks),
        (["sweep=shapes_demo"], "model.block_width", 24, None, lambda c: c.block.type.has_bottlenecks),
        (["sweep=mobilebert_table_transfer"], "method.stage_rates", "equal", "released",
         lambda c: c.method.name.transfers and c.method.transfer == "progressive"),
    ],
)  # fmt: skip
def test_a_setting_that_some_cells_read_is_for_these(
    words: list[str], setting: str, given: Any, other: Any, readers: Callable[[RunConfig], bool]
) -> None:
    group, key = setting.split(".")
    found = cells(*words, f"{setting}={given}")
    assert len([c for c in found if c.rows]) == len([c for c in cells(*words) if c.rows])
    values = {readers(c.config): getattr(getattr(c.config, group), key) for c in found if c.rows}
    assert values == {True: given, False: other}


def test_a_setting_that_no_cell_reads_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.generator_width=0\.5: no effect with method=mlm"):
        cells("method.generator_width=0.5", "seed=0,1")
    with pytest.raises(ConfigError, match=r"attention\.block=32: no effect with attention=full"):
        cells("sweep=table5", "attention.block=32")


def test_several_sweeps_at_once_are_their_union() -> None:
    found = cells("sweep=table3,table4,table5", "scale=cpu")
    assert len(found) == 14
    assert {c.config.sweep for c in found} == {"table3-table4-table5"}


def test_a_cells_overrides_alone_give_the_cell() -> None:
    for cell in cells("sweep=table12", "scale=cpu", "seed=0,1"):
        (again,) = cells(*cell.overrides[:-1])
        assert again.config.architecture() == cell.config.architecture()
        assert again.config.seed == cell.config.seed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep=tabel4"], ["sweep=tabel4", "Did you mean sweep=table4?"]),
        (["sweep=zzz"], ["there is no such sweep", "figure1"]),
        (["sweep=table3", "scale=paper", "embed=e16"], ["embed=e16", "e64, e128, e256, full"]),
        (["sweep=table3", "share=attention"], ["share=attention", "none, all"]),
        (["sweep=table3", "share=everything"], ["share=everything", "none, all"]),
        (["sweep=table3", "objective=cause"], ["objective=cause", "nsp"]),
        (["embed=e64,e512"], ["embed=e512", "e128"]),
        (["embed=e64,e256", "share=all"], ["embed.size=256", "model.hidden=192"]),
        (["embed=e64,e128", "foo=1,2"], ["foo"]),
        (["sweep=table3", "seed=interval(0,1)"], ["interval", "List the values"]),
        (["sweep=table3", "seed=(("], ["seed"]),
        (["seed=glob(*)"], ["seed=glob(*)", "options of a group"]),
        (["share=glob(z*)"], ["no value fits", "all, attention, ffn, none"]),
        (["seed=range(1e30)"], ["more than 10,000 values"]),
        (["rerun=failed,all"], ["rerun=failed,all", "missing, failed, all"]),
        (["hydra/sweeper=optuna"], ["hydra/sweeper=optuna", "own sweeper"]),
        (["hydra/launcher=rq"], ["hydra/launcher=rq", "joblib, submitit_local, submitit_slurm"]),
        (["sweep=nowhere/mine.yaml"], ["nowhere/mine.yaml", "no such sweep"]),
    ],
)
def test_mistakes_are_refused_in_words(words: list[str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        cells(*words)
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("title: x\ncell: []\n", ["cell", "A sweep file may have: title"]),
        ("cells: [{share: all}]\n", ["title"]),
        ("title: [\n", ["is not YAML"]),
        ("title: x\n", ["lists no cells"]),
        ("title: x\nincludes: [SELF]\n", ["includes itself"]),
        ("title: x\ncells: [{size: [huge]}]\n", ["size=huge", "xxlarge"]),
        ("title: x\ncells: [{embedding: [H*2]}]\n", ["embedding=H*2", "H/12"]),
        ("title: x\ncells: [{depth: [deep]}]\n", ["depth=deep"]),
        ("title: x\ncells: [{after: [shallow]}]\n", ["after=shallow"]),
        ("title: x\ncells: [{corpus: [other]}]\n", ["corpus=other", "base, more"]),
    ],
)
def test_a_wrong_file_is_refused_in_words(content: str, said: list[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content.replace("SELF", str(file)))
    with pytest.raises(ConfigError) as caught:
        cells(f"sweep={file}")
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("settings: {hydra/launcher: joblib}", ["hydra/launcher: not a setting of a cell", "on the command line"]),
        ("settings: {hydra.launcher.n_jobs: 2}", ["hydra.launcher.n_jobs: not a setting", "on the command line"]),
        ("settings: {hydra: {launcher: joblib}}", ["hydra: not a setting", "on the command line"]),
        ("defaults: [{override hydra/launcher: joblib}]", ["defaults: not a setting", "on the command line"]),
        ("settings: {rerun: all}", ["rerun: not a setting", "on the command line"]),
        ("settings: {+new: 1}", ["+new: there is no such setting"]),
        ("settings: {optimizer.lr: 1}", ["optimizer.lr: there is no such setting", "learning_rate"]),
        ("settings: {seed: range(3)}", ["seed: range(3)", "belong on the command line"]),
        ("settings: {data.path: 'a.txt,b.txt'}", ["data.path: a.txt,b.txt", "several values are a list"]),
    ],
)
def test_a_key_that_a_sweep_file_cannot_have_is_refused(content: str, said: list[str], tmp_path: Path) -> None:
    """No key of Hydra is taken without effect, and none is advised to be appended."""
    told = refusal(f"title: x\n{content}\ncells: [{{share: all}}]\n", tmp_path)
    for part in said:
        assert part in told
    assert "append" not in told


def refusal(content: str, folder: Path) -> str:
    """What is said of a sweep file with this content."""
    file = folder / "mine.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        cells(f"sweep={file}")
    return str(caught.value)


MISTAKES = [
    ("cells:\n  - {share: [all, nonee]}\n", ["mine.yaml, line 3: share=nonee: there is no such option. Did you mean"]),
    ("cells:\n  - share: all\n    depth: deep\n", ["mine.yaml, line 4: depth=deep"]),
    ("settings:\n  layer: 3\ncells:\n  - {}\n", ["mine.yaml, line 3: layer: there is no such setting. Did you mean"]),
    ("settings: {scale: laptop}\ncells: [{share: [all, none]}]\n", ["mine.yaml, line 2: scale=laptop"]),
    ("cells:\n  - {embed: e64}\n  - {embed: e256, seed: x}\n", ["mine.yaml, line 4: seed='x'"]),
    ("cells:\n  - {embed: e64}\n  - {embed: e256}\n", ["mine.yaml, the cell in line 4: embed.size=256"]),
    ("cels: []\n", ["cels: there is no such key. Did you mean cells?"]),
    ("cells:\n  - {share: all\n  - {x: [\n", ["is not YAML: line 4: expected ',' or '}'"]),
    ("cells: all\n", ["mine.yaml: cells: a list is expected."]),
    ("cells: [all]\n", ["mine.yaml: cells.0: settings with values are expected"]),
]


@pytest.mark.parametrize(("content", "said"), MISTAKES, ids=[content for content, _ in MISTAKES])
def test_a_mistake_in_a_file_is_said_with_its_line(content: str, said: list[str], tmp_path: Path) -> None:
    told = refusal(f"title: x\n{content}", tmp_path)
    for part in said:
        assert part in told


def test_every_mistake_of_a_file_and_of_the_command_is_named_once(tmp_path: Path) -> None:
    file, outer = tmp_path / "mine.yaml", tmp_path / "outer.yaml"
    file.write_text("title: x\ncells:\n  - {model.hidde: 3}\n  - {share: nonee}\n")
    outer.write_text(f"title: y\nincludes: [{file}]\n")
    with pytest.raises(ConfigError) as caught:
        cells(f"sweep={outer}", "seed=0,1")
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "mine.yaml, line 3",
        "mine.yaml, line 4",
    ]
    with pytest.raises(ConfigError) as caught:
        cells(f"sweep={file}", "foo=1")
    assert [problem.partition(":")[0] for problem in caught.value.problems if "foo" in problem] == ["foo"]


def test_values_of_a_sweep_file_are_taken_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "мой файл.yaml"
    paths = "[корпус.txt, 'a b=1 (c).txt', \"'a,b.txt'\"]"
    file.write_text(
        f"title: x\nsettings: {{data: text, tokenizer.model_path: null, data.path: {paths}}}\ncells: [{{}}]\n"
    )
    found = cells(f"sweep={file}")
    assert [cell.config.data.path for cell in found] == ["корпус.txt", "a b=1 (c).txt", "a,b.txt"]
    assert {cell.config.tokenizer.model_path for cell in found} == {None}


def test_functions_of_the_command_line_give_cells() -> None:
    assert [c.config.share.strategy.value for c in cells("share=glob(a*)")] == ["all", "attention"]
    chosen = cells("share=glob([a*,f*],exclude=attention)", "seed=sort(3,1)")
    assert [(c.config.share.strategy.value, c.config.seed) for c in chosen] == [
        ("all", 1), ("all", 3), ("ffn", 1), ("ffn", 3),
    ]  # fmt: skip
    assert len(cells("sweep=table5", "share=glob(a*)")) == 6


def test_settings_of_a_task_make_cells() -> None:
    """Pretraining is the same run; the fine-tunings are not."""
    found = cells("task=sst2", "tasks.sst2.learning_rate=1e-5,2e-5")
    assert [c.config.tasks["sst2"].learning_rate for c in found] == [1e-5, 2e-5]
    assert settings_digest(found[0].config) == settings_digest(found[1].config)


def test_titles_say_what_a_sweep_is_about() -> None:
    for name in sweep_names():
        assert load(name).title
        assert load(name).paper


def test_the_name_of_a_file_of_ones_own_is_answered_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "depth.yaml").write_text("title: Depth\ncells: [{model.layers: [3, 6]}]\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"sweep=depth: there is no such sweep. Did you mean sweep=mine/depth.yaml\?"):
        load("depth")
