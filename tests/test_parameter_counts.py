"""Counts on the configuration against known totals, the built model and the profiler."""

import pytest
import torch
from modelhelpers import blocks_of
from torch.utils.flop_counter import FlopCounterMode

from albert_ablate.axes import Share
from albert_ablate.door.compose import compose
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.heads import SentenceHead
from albert_ablate.model.pretraining import PretrainingModel, build_model

#: (embed, share): encoder, with pooler, with heads; size base, V = 30,000.
BASE = {
    (64, "all"): (9_090_816, 9_681_408, 9_762_290),
    (64, "attention"): (61_054_464, 61_645_056, 61_725_938),
    (64, "ffn"): (35_093_760, 35_684_352, 35_765_234),
    (64, "none"): (87_057_408, 87_648_000, 87_728_882),
    (128, "all"): (11_092_992, 11_683_584, 11_813_810),
    (128, "attention"): (63_056_640, 63_647_232, 63_777_458),
    (128, "ffn"): (37_095_936, 37_686_528, 37_816_754),
    (128, "none"): (89_059_584, 89_650_176, 89_780_402),
    (256, "all"): (15_097_344, 15_687_936, 15_916_850),
    (256, "attention"): (67_060_992, 67_651_584, 67_880_498),
    (256, "ffn"): (41_100_288, 41_690_880, 41_919_794),
    (256, "none"): (93_063_936, 93_654_528, 93_883_442),
    (768, "all"): (30_524_160, 31_114_752, 31_738_418),
    (768, "attention"): (82_487_808, 83_078_400, 83_702_066),
    (768, "ffn"): (56_527_104, 57_117_696, 57_741_362),
    (768, "none"): (108_490_752, 109_081_344, 109_705_010),
}

#: (size, embed): with pooler, for all, attention, ffn, none.
LARGER = {
    ("large", 64): (15_665_408, 208_768_256, 112_275_712, 305_378_560),
    ("large", 128): (17_683_968, 210_786_816, 114_294_272, 307_397_120),
    ("large", 256): (21_721_088, 214_823_936, 118_331_392, 311_434_240),
    ("large", 1024): (44_894_208, 237_997_056, 141_504_512, 334_607_360),
    ("xlarge", 64): (56_640_768, 828_722_432, 442_799_360, 1_214_881_024),
    ("xlarge", 128): (58_724_864, 830_806_528, 444_883_456, 1_216_965_120),
    ("xlarge", 256): (62_893_056, 834_974_720, 449_051_648, 1_221_133_312),
    ("xlarge", 2048): (117_051_392, 889_133_056, 503_209_984, 1_275_291_648),
    ("xxlarge", 64): (220_380_416, 1_697_090_816, 958_848_256, 2_435_558_656),
    ("xxlarge", 128): (222_595_584, 1_699_305_984, 961_063_424, 2_437_773_824),
    ("xxlarge", 256): (227_025_920, 1_703_736_320, 965_493_760, 2_442_204_160),
    ("xxlarge", 4096): (343_154_688, 1_819_865_088, 1_081_622_528, 2_558_332_928),
}


def architecture(size: str, embed: int, share: str) -> Architecture:
    return compose(["scale=paper", f"model={size}", f"embed.size={embed}", f"share={share}"]).architecture()


@pytest.mark.parametrize(("cell", "expected"), BASE.items(), ids=str)
def test_base(cell: tuple[int, str], expected: tuple[int, int, int]) -> None:
    counts = architecture("base", *cell).parameters()
    assert (counts.encoder, counts.with_pooler, counts.with_heads) == expected


@pytest.mark.parametrize(("cell", "expected"), LARGER.items(), ids=str)
def test_larger_sizes(cell: tuple[str, int], expected: tuple[int, ...]) -> None:
    assert tuple(architecture(*cell, share.value).parameters().with_pooler for share in Share) == expected


@pytest.mark.parametrize("size", ["nano", "mini", "base", "large", "xxlarge"])
@pytest.mark.parametrize("share", list(Share))
@pytest.mark.parametrize("embed", ["e16", "e128", "full"])
def test_counts_equal_the_built_model(size: str, share: Share, embed: str) -> None:
    shape = compose(["scale=paper", f"model={size}", f"embed={embed}", f"share={share.value}"]).architecture()
    with torch.device("meta"):
        model = PretrainingModel(shape)
    counts, encoder = shape.parameters(), model.encoder

    def total(*modules: torch.nn.Module) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    assert counts.encoder == total(encoder)
    assert counts.with_pooler == total(encoder, model.pooler)
    assert counts.with_heads == total(model)
    assert counts.blocks == {kind: total(blocks_of(encoder, kind)) for kind in ("attention", "ffn")}
    assert counts.projection == total(encoder.embedding.projection)
    assert counts.heads["mlm_head"] == total(model.mlm_head)
    assert counts.heads["sentence_head"] == total(model.sentence_head)
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == counts.with_heads


@pytest.mark.parametrize("embedding", [16, 32])
@pytest.mark.parametrize("share", list(Share))
def test_forward_flops_equal_the_counted_ones(embedding: int, share: Share) -> None:
    shape = Architecture(61, embedding, 32, 4, 4, 128, 24, share)
    model = build_model(shape, 0).eval()
    ids = torch.ones(1, 20, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        hidden = model.encoder(ids, ids)  # every position, as the convention counts
        model.token_logits(hidden[0, 1:4])
        model.sentence_logits(hidden)
    assert counter.get_total_flops() == shape.forward_flops(20, 3) + SentenceHead.flops(shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.encoder(ids, ids)
    assert counter.get_total_flops() == shape.encoder_flops(20)


def test_a_manifest_names_the_parts_as_ever() -> None:
    """The keys, their order and the values that manifests hold."""
    assert list(Architecture(61, 16, 32, 4, 4, 128, 24, Share.FFN).parameters().as_dict().items()) == [
        ("encoder", 27_536), ("with_pooler", 28_592), ("with_heads", 29_279), ("embedding", 1_424), ("projection", 544),
        ("attention", 17_152), ("ffn", 8_416), ("pooler", 1_056), ("mlm_head", 621), ("sentence_head", 66),
    ]  # fmt: skip
