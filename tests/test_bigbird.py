"""BigBird's attention: plans, and the gathering kernel against dense masks made from the same plans."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelhelpers import blocks_of
from runhelpers import run, tiny_config
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from albert_ablate.axes import Share
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError
from albert_ablate.methods import method_of
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.attention import MASKED_SCORE, PATTERNS, View
from albert_ablate.model.block_attention import block_attention
from albert_ablate.model.block_pattern import BlockPattern
from albert_ablate.model.block_plan import Place, key_blocks, share_seen
from albert_ablate.model.blocks import AttentionBlock, FeedForwardBlock
from albert_ablate.model.encoder import Encoder
from albert_ablate.model.pretraining import build_model
from analysis.read.runs import load_runs

N, D, BLOCK = 3, 8, 4
ITC = BlockPattern(BLOCK, window=3, global_blocks=2, random=2, seed=7)
ARMS = {
    "R+W+G": ITC,
    "W+G": replace(ITC, random=0),
    "R+W": replace(ITC, global_blocks=0),
    "R+G": replace(ITC, window=0),
    "R": replace(ITC, window=0, global_blocks=0, random=3),
    "W": replace(ITC, global_blocks=0, random=0),
    "G": replace(ITC, window=0, random=0),
    "wide, three global": BlockPattern(BLOCK, window=5, global_blocks=3, random=1),
    "transformers": replace(ITC, plan="transformers"),
    "no random in evaluation": replace(ITC, plan="transformers"),
}


def place(length: int, layer: int = 1, heads: int = N, positions: int = 4096, training: bool = True) -> Place:
    return Place(layer, heads, length, positions, training)


def times_seen(plan: tuple[tuple[tuple[int, ...], ...], ...], block: int, length: int) -> Tensor:
    """(1, N, L, L): how often the query of the row attends to the key of the column; a plain loop over the plan."""
    times = torch.zeros(1, len(plan), length, length, dtype=torch.float64)
    for head, rows in enumerate(plan):
        for row, columns in enumerate(rows):
            for column in columns:
                times[0, head, row * block : (row + 1) * block, column * block : (column + 1) * block] += 1
    return times


def dense(q: Tensor, k: Tensor, v: Tensor, times: Tensor, keys: Tensor | None) -> Tensor:
    """Attention over all pairs with a bias: -inf where no block is chosen, the log of how often one is elsewhere."""
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3]) + times.log()
    if keys is not None:
        scores = scores + keys[:, None, None]
    return scores.softmax(-1) @ v


def operands(batch: int, length: int, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, N, length, D, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(4)]


def padded(kind: str, batch: int, length: int) -> Tensor | None:
    """(B, L) to add to the scores."""
    if kind == "none":
        return None
    real = torch.arange(length) < torch.tensor([[length], [length - 7], [length // 3]])[:batch]
    if kind == "holes":
        real[:, 5] = False
    return torch.where(real, 0.0, MASKED_SCORE).double()


# --- the kernel -----------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["none", "tails", "holes"])
@pytest.mark.parametrize(("batch", "length"), [(3, 56), (1, 53), (2, 41), (1, 37)])
@pytest.mark.parametrize("arm", ARMS)
def test_gathered_attention_is_dense_attention_with_the_plans_mask(
    arm: str, batch: int, length: int, padding: str
) -> None:
    pattern = ARMS[arm]
    where = place(length, training="evaluation" not in arm)
    assert not pattern.is_full(length)
    q, k, v, upstream = operands(batch, length)
    keys = padded(padding, batch, length)
    found = block_attention(q, k, v, pattern, where, keys, 0.0)
    times = times_seen(key_blocks(pattern, where), BLOCK, length)
    assert (times.sum(-1) > 0).all()  # no query without a key
    expected = dense(q, k, v, times, keys)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    gradients = [torch.autograd.grad(y, (q, k, v), upstream) for y in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("arm", ["R+W+G", "W"])
def test_single_precision_is_close(arm: str) -> None:
    length = 256
    q, k, v, _ = (z.detach().float() for z in operands(2, length))
    found = block_attention(q, k, v, ARMS[arm], place(length), None, 0.0)
    times = times_seen(key_blocks(ARMS[arm], place(length)), BLOCK, length)
    torch.testing.assert_close(found, dense(q, k, v, times.float(), None), atol=1e-6, rtol=0)


def test_a_block_that_is_chosen_twice_counts_twice() -> None:
    pattern = replace(ITC, plan="transformers")
    plan = key_blocks(pattern, place(60, training=False))
    assert plan[0][5] == (0, 4, 5, 6, 14, 0, 0)
    q, k, v, _ = operands(1, 60)
    found = block_attention(q, k, v, pattern, place(60, training=False), None, 0.0)
    times = times_seen(plan, BLOCK, 60)
    assert times.max() == 3
    assert (found - dense(q, k, v, (times > 0).double(), None)).abs().max() > 1e-3
    torch.testing.assert_close(found, dense(q, k, v, times, None))


def test_probabilities_are_dropped_as_in_full_attention() -> None:
    """With v = 1 the result is the sum of what is left, each probability scaled up by the rate."""
    q, k, v, _ = (z.detach() for z in operands(2, 400))
    v = torch.ones_like(v)
    torch.manual_seed(0)
    sums = block_attention(q, k, v, ITC, place(400), None, 0.5)
    assert sums.std() > 0.05
    assert sums.mean().item() == pytest.approx(1.0, abs=0.02)
    torch.testing.assert_close(block_attention(q, k, v, ITC, place(400), None, 0.0), v)


class Largest(TorchDispatchMode):
    """The number of elements in the memory of the largest tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else (result,):
            if isinstance(part, Tensor):
                self.elements = max(self.elements, part.untyped_storage().nbytes() // part.itemsize)
        return result


def test_no_tensor_has_as_many_elements_as_there_are_pairs() -> None:
    largest = {}
    for length in (1024, 2048):
        shape = architecture(max_positions=length, layers=1, blocks=BlockPattern(16, 3, 2, 3))
        encoder = build_model(shape, 0).encoder
        ids = torch.ones(1, length, dtype=torch.int64)
        mask = torch.arange(length)[None] < length - 5
        with Largest() as counter:
            encoder(ids, ids, mask).sum().backward()
        largest[length] = counter.elements
    assert largest[2048] < 2048**2 / 4
    assert largest[2048] == pytest.approx(2 * largest[1024], rel=0.1)


# --- plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["R+W+G", "W+G", "R+W", "R+G", "R", "W", "G", "wide, three global"])
@pytest.mark.parametrize("length", [40, 61, 64, 200])
def test_own_plans_are_legal(arm: str, length: int) -> None:
    """Global rows see all; others the window, the global blocks and exactly r more, or all that are left."""
    pattern, n = ARMS[arm], -(-length // BLOCK)
    at_start, at_end = (pattern.global_blocks + 1) // 2, pattern.global_blocks // 2
    globals_ = {*range(at_start), *range(n - at_end, n)}
    for head in key_blocks(pattern, place(length)):
        assert len(head) == n
        for row, columns in enumerate(head):
            assert len(set(columns)) == len(columns)
            assert set(columns) <= set(range(n))
            if row in globals_:
                assert set(columns) == set(range(n))
                continue
            half = pattern.window // 2
            fixed = globals_ | ({*range(max(0, row - half), min(n, row + half + 1))} if pattern.window else set())
            assert fixed <= set(columns)
            assert len(columns) == min(n, len(fixed) + pattern.random)


def test_own_plans_differ_by_seed_layer_and_head_and_by_nothing_else() -> None:
    plan = key_blocks(ITC, place(400))
    assert key_blocks(ITC, place(400, training=False)) == plan
    assert key_blocks(ITC, place(400, positions=400)) == plan
    assert key_blocks(replace(ITC, seed=8), place(400)) != plan
    assert key_blocks(ITC, place(400, layer=2)) != plan
    assert len(set(plan)) == N
    key_blocks.cache_clear()
    assert key_blocks(ITC, place(400)) == plan


def test_random_blocks_are_uniform_over_all_that_are_left() -> None:
    n, seeds = 40, 400
    counts = np.zeros(n)
    for seed in range(seeds):
        columns = key_blocks(replace(ITC, seed=seed), place(n * BLOCK, heads=1))[0][20]
        counts[[column for column in columns if column not in (0, 19, 20, 21, n - 1)]] += 1
    legal = [column for column in range(n) if column not in (0, 19, 20, 21, n - 1)]
    assert counts.sum() == 2 * seeds
    expected = 2 * seeds / len(legal)
    assert ((counts[legal] - expected) ** 2 / expected).sum() < 70  # chi squared, 34 degrees of freedom: p = 0.0003


def states_of_generators() -> list[Any]:
    of_numpy: Any = np.random.get_state()  # noqa: NPY002
    return [random.getstate(), of_numpy[1].tolist(), torch.get_rng_state().tolist()]


def test_generators_of_others_are_untouched() -> None:
    key_blocks.cache_clear()
    states = states_of_generators()
    for plan in ("seed", "released", "transformers"):
        for length in (1024, 2000):
            key_blocks(BlockPattern(16, 3, 2, 3, plan), place(length))
    assert states_of_generators() == states


def test_the_released_plan_reaches_only_the_first_tokens() -> None:
    plan_a = key_blocks(BlockPattern(64, 3, 2, 3, "released"), place(4096, layer=0, heads=12))
    plan_b = key_blocks(BlockPattern(64, 3, 2, 3, "released"), place(1536, layer=0, heads=12))
    for plan, n, last in ((plan_a, 64, 15), (plan_b, 24, 9)):
        drawn = {column for head in plan for row in range(2, n - 2) for column in head[row][5:]}
        assert drawn == set(range(1, last + 1))
    for plan, n in ((plan_a, 64), (plan_b, 24)):  # whatever is drawn is new
        assert all(len(set(head[row])) == len(head[row]) for head in plan for row in range(n))


def test_the_released_plan_repeats_blocks_at_1024_tokens() -> None:
    """38 of 504 random blocks of layer 0 with 12 heads, as counted in the released code's own draws."""
    plan = key_blocks(BlockPattern(64, 3, 2, 3, "released"), place(1024, layer=0, heads=12))
    assert sum(len(columns) - len(set(columns)) for head in plan for columns in head) == 38


# --- counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "pairs"), [(704, 376_832), (1024, 581_632), (2048, 1_236_992), (4096, 2_547_712)]
)  # 2bL + (n-4) b^2 (5+r) + 2 b^2 (4+r)
@pytest.mark.parametrize("plan", ["seed", "released"])
def test_pairs_equal_the_formula(length: int, pairs: int, plan: str) -> None:
    pattern = BlockPattern(64, 3, 2, 3, plan)
    if not pattern.is_full(length):
        assert pattern.keys(length) * length == pairs
    assert (plan, length) == ("released", 704) or not pattern.is_full(length)


@pytest.mark.parametrize("arm", ARMS)
def test_keys_count_the_plan(arm: str) -> None:
    for length in (56, 80):
        plan = key_blocks(ARMS[arm], place(length))
        assert ARMS[arm].keys(length) == times_seen(plan, BLOCK, length).sum().item() / N / length


def test_flops_grow_with_the_length() -> None:
    sparse = architecture(max_positions=8192, blocks=BlockPattern(16, 3, 2, 3))
    full = replace(sparse, pattern="full", blocks=None)
    ratio = {length: full.encoder_flops(length) / sparse.encoder_flops(length) for length in (16, 1024, 4096)}
    assert ratio[16] == 1.0
    assert 1.1 < ratio[1024] < ratio[4096] / 2
    assert sparse.encoder_flops(8192) / sparse.encoder_flops(4096) == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("length", [40, 61, 64])
def test_the_share_of_pairs_is_that_of_the_plans(length: int) -> None:
    seen = [times_seen(key_blocks(ITC, place(length, layer)), BLOCK, length) > 0 for layer in range(3)]
    assert share_seen(ITC, 3, N, length, 4096) == pytest.approx(torch.stack(seen).double().mean().item())
    assert share_seen(ITC, 3, N, 24, 4096) == 1.0


# --- the encoder ----------------------------------------------------------------------------------

H, L, V = 32, 3, 50


def architecture(share: Share = Share.ALL, **other: Any) -> Architecture:
    values: dict[str, Any] = {
        "vocab_size": V, "embedding_size": 16, "hidden_size": H, "layers": L, "heads": 4, "intermediate_size": 64,
        "max_positions": 128, "share": share, "initializer_range": 0.3, "pattern": "bigbird",
        "blocks": replace(ITC, random=1), **other,
    }  # fmt: skip
    return Architecture(**values)


def moved(shape: Architecture) -> Encoder:
    encoder = build_model(shape, 0).encoder.double()
    draw = torch.Generator().manual_seed(5)
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw).double()
    return encoder


def inputs(length: int, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.randint(5, V, (batch, length), generator=torch.Generator().manual_seed(0))
    types = (torch.arange(length) > length // 2).long().expand(batch, length)
    return ids, types, torch.arange(length) < torch.tensor([length, length - 9])[:batch, None]


def written_out(encoder: Encoder, length: int) -> Tensor:
    """A plain post-norm encoder over dense scores with the mask of each layer's plan."""
    ids, types, mask = inputs(length)
    pattern, tables = encoder.shape.blocks, encoder.embedding
    assert pattern is not None
    assert tables.token_type is not None
    summed = tables.word.weight[ids] + tables.position.weight[:length] + tables.token_type.weight[types]
    x = tables.projection(tables.norm(summed))  # type: ignore[misc]
    keys = torch.where(mask, 0.0, MASKED_SCORE).double()
    for layer, blocks in enumerate(encoder.layer_blocks):
        attention, ffn = (blocks_of(encoder, kind)[entry] for kind, entry in blocks)
        assert isinstance(attention, AttentionBlock)
        assert isinstance(ffn, FeedForwardBlock)
        q, k, v = (m(x).view(len(ids), length, 4, H // 4).transpose(1, 2)
                   for m in (attention.query, attention.key, attention.value))  # fmt: skip
        times = times_seen(key_blocks(pattern, place(length, layer, heads=4)), pattern.block, length)
        context = dense(q, k, v, times, keys).transpose(1, 2).reshape(len(ids), length, H)
        x = attention.norm(x + attention.output(context))
        x = ffn.norm(x + ffn.outer(F.gelu(ffn.inner(x), approximate="tanh")))
    return x


def with_gradients(encoder: Encoder, y: Tensor, mask: Tensor) -> list[Tensor]:
    weights = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return [y[mask], *torch.autograd.grad((y * weights * mask[:, :, None]).sum(), list(encoder.parameters()))]


@pytest.mark.parametrize("share", list(Share))
@pytest.mark.parametrize("length", [48, 45])
def test_every_layer_has_a_plan_of_its_own_where_weights_are_shared(share: Share, length: int) -> None:
    encoder = moved(architecture(share))
    ids, types, mask = inputs(length)
    mine = with_gradients(encoder, encoder(ids, types, mask), mask)
    torch.testing.assert_close(mine, with_gradients(encoder, written_out(encoder, length), mask), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("length", [3, 16, 20])
def test_short_sequences_have_full_attention_exactly(length: int) -> None:
    """Five blocks: the second row has two global ones, two more of the window and one random one."""
    sparse = moved(architecture())
    full = moved(architecture(pattern="full", blocks=None))
    ids, types, _ = inputs(length, batch=1)
    full.load_state_dict(sparse.state_dict())
    assert sparse.shape.blocks is not None
    assert sparse.shape.blocks.is_full(length)
    torch.testing.assert_close(sparse(ids, types), full(ids, types), atol=1e-12, rtol=1e-12)


def test_all_blocks_selected_is_full_attention() -> None:
    q, k, v, upstream = operands(2, 56)
    every = replace(ITC, random=20)
    found = block_attention(q, k, v, every, place(56), None, 0.0)
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*[torch.autograd.grad(y, (q, k, v), upstream) for y in (found, expected)])


def test_a_forward_pass_depends_on_nothing_before_it() -> None:
    encoder = moved(architecture())
    ids, types, mask = inputs(100)
    alone = encoder(ids, types, mask)
    encoder(ids[:, :8], types[:, :8])
    assert torch.equal(encoder(ids, types, mask), alone)
    assert torch.equal(encoder.eval()(ids, types, mask), alone)


def test_recomputed_layers_have_the_same_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        model = build_model(architecture(Share.ATTENTION, hidden_dropout=0.2, attention_dropout=0.2), 0).train()
        model.encoder.recompute = recompute
        torch.manual_seed(1)
        model.encoder(*inputs(48)).square().sum().backward()
        gradients.append([p.grad for p in model.encoder.parameters()])
    torch.testing.assert_close(*gradients)


def test_chosen_rows_are_those_of_all() -> None:
    encoder = moved(architecture()).eval()
    ids, types, mask = inputs(45)
    rows = torch.tensor([0, 7, 44, 45, 60])
    torch.testing.assert_close(encoder(ids, types, mask, rows=rows), encoder(ids, types, mask).flatten(0, 1)[rows])


def test_a_mask_of_pairs_is_refused() -> None:
    encoder = moved(architecture())
    ids, types, mask = inputs(48)
    with pytest.raises(ValueError, match="not one of pairs"):
        encoder(ids, types, mask[:, None, None, :])


def test_what_the_pattern_shows_is_the_plan() -> None:
    shape = architecture()
    seen = PATTERNS["bigbird"].visible(shape, 1, torch.arange(45))
    assert seen is not None
    assert shape.blocks is not None
    expected = times_seen(key_blocks(shape.blocks, place(45, heads=4)), BLOCK, 45) > 0
    assert torch.equal(seen, expected)
    assert torch.equal(View(shape, 1, None, torch.empty(1, 45, H)).visible, expected)  # type: ignore[arg-type]


# --- settings and runs ----------------------------------------------------------------------------

RUN = ("attention=bigbird", "attention.block=4", "attention.random=1")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["attention.block=16"], "no effect with attention=full"),
        (["attention.plan=released"], "no effect with attention=full"),
        (["attention=bigbird", "attention.window=4"], "odd number such as 5"),
        (
            ["attention=bigbird", "attention.window=0", "attention.global_blocks=0", "attention.random=0"],
            "would attend to nothing",
        ),
        (["attention=bigbird", "attention.plan=released", "attention.window=5"], "made for 3"),
        (["attention=bigbird", "attention.plan=transformers", "attention.global_blocks=1"], "made for 2"),
        (["attention=bigbird", "attention.plan=released", "attention.random=0"], "it plans random blocks"),
        (["attention=bigbird", "attention.plan=released", "attention.block=256"], "Use blocks of 146 tokens or fewer"),
        (["attention=bigbird", "method=causal", "objective=none", "method.pooler=trained"], "both sides of a position"),
        (["attention=bigbird", "knowledge=inject", "task=facts"], "Use knowledge=text"),
        (["attention=bigbird", "attention.block=0"], "attention.block"),
    ],
)
def test_settings_that_contradict_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(overrides)


def test_a_student_of_attention_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="attention"):
        method_of(tiny_config(tmp_path, "method=tinybert", "objective=none", *RUN)).parents()


def test_a_run_says_what_it_sees(tmp_path: Path) -> None:
    folder = run(tiny_config(tmp_path, *RUN))
    config = tiny_config(tmp_path, *RUN)
    pattern = config.architecture().blocks
    assert pattern == BlockPattern(4, 3, 2, 1, "seed", 0)
    recorded = folder.read("manifest.json")["blocks"]
    assert recorded == {
        "pairs_seen": share_seen(pattern, 2, 2, 32, 32), "keys": pattern.keys(32), "is_full": False,
    }  # fmt: skip
    assert 0.6 < recorded["pairs_seen"] < 0.9
    assert f"{recorded['pairs_seen']:.1%} of all pairs of positions are seen" in (folder.path / "log.txt").read_text()
    assert folder.name.startswith("e16-all-sop-bigbird-")
    (row,) = load_runs(tmp_path / "runs").to_dict("records")
    assert (row["attention"], row["pairs_seen"]) == ("bigbird", recorded["pairs_seen"])


def test_an_arm_that_sees_all_pairs_is_that_of_full_attention(tmp_path: Path) -> None:
    """The same losses to rounding: only the path of computation differs."""
    blocks, full = (
        run(tiny_config(tmp_path, *more, runs=name))
        for name, more in (("blocks", ("attention=bigbird",)), ("full", ()))
    )
    assert blocks.read("manifest.json")["blocks"]["is_full"]
    assert "as in attention=full" in (blocks.path / "log.txt").read_text()
    assert "blocks" not in full.read("manifest.json")
    losses = [folder.read("results.json")["masked_lm"]["loss"] for folder in (blocks, full)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    flops = [folder.read("manifest.json")["flops_per_step"] for folder in (blocks, full)]
    assert flops[0] == flops[1]
