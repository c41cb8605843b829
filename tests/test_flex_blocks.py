"""FlexAttention's form of a plan: the pairs it names, on a CPU; the compiled kernel against gathered keys, on a GPU."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from test_bigbird import BLOCK, ITC, N, place, times_seen
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask, flex_attention

from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError
from albert_ablate.model import flex_blocks
from albert_ablate.model.block_attention import block_attention
from albert_ablate.model.block_pattern import FLEX, GATHER, BlockPattern, tile_of
from albert_ablate.model.block_plan import key_blocks
from albert_ablate.training.machine import Machine

CPU = torch.device("cpu")
PATTERNS = {
    "R+W+G": ITC, "W+G": replace(ITC, random=0), "R": replace(ITC, window=0, global_blocks=0, random=3),
    "W": replace(ITC, global_blocks=0, random=0), "wide": BlockPattern(BLOCK, window=5, global_blocks=3, random=1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _gathering() -> Iterator[None]:
    yield
    flex_blocks.use(GATHER)


def inputs(length: int, device: str = "cpu", width: int = 8, heads: int = N) -> list[Tensor]:
    draw = torch.Generator().manual_seed(length)
    return [torch.randn(2, heads, length, width, generator=draw).to(device) for _ in range(4)]


def padding(length: int, real: int) -> Tensor:
    """(2, L): nothing is masked in the first sequence, all but the first positions in the second."""
    keys = torch.zeros(2, length)
    keys[1, real:] = -10000.0
    return keys


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("length", [64, 62])
def test_both_forms_of_the_mask_name_the_pairs_of_the_plan(name: str, length: int) -> None:
    """The index of blocks, which the compiled kernel reads, and the function of positions, which the other reads."""
    pattern = PATTERNS[name]
    seen = times_seen(key_blocks(pattern, place(length)), BLOCK, 64) > 0  # (1, N, 64, 64)
    mask = flex_blocks.block_mask(pattern, place(length), CPU)
    indexed = mask.to_dense().bool()  # (1, N, n, n)
    assert torch.equal(indexed.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3), seen)
    assert torch.equal(create_mask(mask.mask_mod, 1, N, 64, 64, "cpu"), seen)
    assert mask.kv_num_blocks.sum() == 0, "all blocks are whole"
    assert mask.shape[-2:] == (64, 64)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("length", [64, 62])
def test_the_plain_form_is_the_function_of_gathered_keys(name: str, length: int) -> None:
    pattern = PATTERNS[name]
    q, k, v, _ = inputs(length)
    for keys in (None, padding(length, 20)):
        expected = block_attention(q, k, v, pattern, place(length), keys, 0.0)
        with torch.no_grad():
            found = flex_blocks._attend(flex_attention, q, k, v, pattern, place(length), keys)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_a_block_that_is_chosen_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="counts a block once"):
        flex_blocks.block_mask(replace(ITC, plan="transformers"), place(64, training=False), CPU)


def test_a_cpu_and_dropout_have_gathered_keys() -> None:
    flex_blocks.use(FLEX)
    (q,) = inputs(64)[:1]
    assert flex_blocks.kernel_for(q, 0.0) is block_attention
    assert flex_blocks.kernel_for(q.to("meta"), 0.1) is block_attention


def test_tiles_divide_a_block() -> None:
    assert [tile_of(block) for block in (4, 16, 48, 64, 80, 256)] == [4, 16, 16, 64, 16, 64]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("attention.block=24", "attention.block=24 with runtime.block_kernel=flex: a block must be a multiple of 16"),
        ("attention.plan=released", "attention.plan=released with runtime.block_kernel=flex: the plan may choose"),
        (
            "model.attention_dropout=0.1",
            "model.attention_dropout=0.1 with runtime.block_kernel=flex: this kernel drops",
        ),
    ],
)
def test_what_it_does_not_compute_is_refused(words: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(["scale=long", "attention=bigbird", "runtime.block_kernel=flex", words])


def test_a_cpu_is_refused() -> None:
    config = compose(["scale=long", "attention=bigbird", "runtime.block_kernel=flex", "runtime.device=cpu"])
    with pytest.raises(ConfigError, match=r"runtime\.block_kernel=flex is for GPUs"):
        Machine.of(config.runtime)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the compiled kernel needs a GPU")
@pytest.mark.parametrize("length", [512, 500])
def test_the_compiled_kernel_on_a_gpu(length: int) -> None:
    """Values and gradients, with and without padding."""
    from benchmarks.rented_gpu.blocks import difference

    for padded in (False, True):
        assert difference(length, padded) < 1e-4
