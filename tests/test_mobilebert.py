"""MobileBERT's form: layers with bottlenecks, trigrams, NoNorm; against transformers and a pass of its own."""

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from modelhelpers import blocks_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import MobileBertConfig, MobileBertForPreTraining

from albert_ablate.axes import Share
from albert_ablate.config.identity import identity
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError
from albert_ablate.interop.mobilebert import to_mobilebert
from albert_ablate.model import cpu
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.embedding import FactorisedEmbedding
from albert_ablate.model.imitation import AttentionTarget, observe, scores_flops
from albert_ablate.model.norms import NoNorm
from albert_ablate.model.pretraining import PretrainingModel, build_model
from albert_ablate.training.optimizers import split_parameters

V, E, H, W, I, L, N, P = 97, 12, 32, 16, 40, 3, 4, 24  # noqa: E741 - the letters of the model's files
B, T = 3, 11
#: Each form: the paper's, as released, tiny, and the teacher, whose width inside is larger than H.
PAPER: dict[str, Any] = {
    "layer_type": "mobilebert", "block_width": W, "feed_forwards": 4, "norm_type": "no_norm", "activation": "relu",
    "trigram": True, "table_width": "hidden", "lm_head": "extended", "pooler": "bare",
}  # fmt: skip
RELEASED = PAPER | {"attention_input": "shared"}
TINY = PAPER | {"attention_input": "bottleneck", "feed_forwards": 2}
TEACHER = PAPER | {
    "block_width": 2 * H, "feed_forwards": 1, "norm_type": "layer_norm", "activation": "gelu_tanh", "pooler": "tanh",
}  # fmt: skip
FORMS = {"paper": PAPER, "released": RELEASED, "tiny": TINY, "teacher": TEACHER}


def form(share: Share = Share.NONE, **other: Any) -> Architecture:
    sizes: dict[str, Any] = {
        "vocab_size": V, "embedding_size": E, "hidden_size": H, "layers": L, "heads": N, "intermediate_size": I,
        "max_positions": P, "share": share, "layer_norm_eps": 1e-5,
    }  # fmt: skip
    return Architecture(**sizes | other)


def moved(shape: Architecture, pooler: bool = True) -> PretrainingModel:
    """Every parameter away from its initial value: zero biases would hide a missing one."""
    model = build_model(replace(shape, initializer_range=0.1), 3, pooler)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return model


def text() -> tuple[Tensor, Tensor, Tensor]:
    """Ids, types, and a mask with padding at the ends."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, V, (B, T), generator=draw)
    mask = torch.arange(T) < torch.tensor([T, 5, 8])[:, None]
    return ids * mask, (torch.arange(T) > 4).long().expand(B, T), mask


def theirs_of(model: PretrainingModel) -> Any:
    """The model as transformers computes it."""
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    found = to_mobilebert(model.shape, tensors, masked_lm=True, head=0.0)
    config = MobileBertConfig(**found.config, attn_implementation="eager")  # type: ignore[call-arg]
    theirs = MobileBertForPreTraining(config).eval()
    missing, unknown = theirs.load_state_dict(found.tensors, strict=False)
    assert not unknown
    assert set(missing) <= {
        "cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "mobilebert.embeddings.position_ids",
    }  # fmt: skip
    theirs.tie_weights()
    theirs.cls.predictions.decoder.bias = theirs.cls.predictions.bias
    return theirs


PARITY = {
    **{f"F={f}": RELEASED | {"feed_forwards": f} for f in (1, 2, 3, 4)},
    "tiny": TINY, "pooler": RELEASED | {"pooler": "tanh"}, "erf": RELEASED | {"activation": "gelu_erf"},
    "layer norm": RELEASED | {"norm_type": "layer_norm", "activation": "gelu_tanh"},
    "tiny layer norm": TINY | {"norm_type": "layer_norm"},
    "no trigrams": RELEASED | {"trigram": False},
    "no trigrams, E=H": RELEASED | {"trigram": False, "embedding_size": H},
    "trigrams, E=H": RELEASED | {"embedding_size": H},
    "inverted": TEACHER | {"attention_input": "shared"},
}  # fmt: skip


@pytest.mark.parametrize("share", [Share.NONE, Share.ALL, Share.FFN])
@pytest.mark.parametrize("name", PARITY)
def test_states_losses_and_gradients_are_those_of_transformers(name: str, share: Share) -> None:
    model = moved(form(share, **PARITY[name])).eval()
    theirs = theirs_of(model)
    ids, types, mask = text()
    positions, targets = torch.tensor([1, 3, 12, 24]), torch.tensor([7, 9, 30, 11])
    labels = torch.tensor([0, 1, 0])
    spread = torch.full((B * T,), -100)
    spread[positions] = targets
    expected = theirs(
        ids, mask.long(), types, labels=spread.view(B, T), next_sentence_label=labels, output_hidden_states=True
    )
    states = model.encoder.hidden_states(ids, types, mask)
    for mine, other in zip(states, expected.hidden_states, strict=True):
        torch.testing.assert_close(mine[mask], other[mask], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        model.token_logits(states[-1].flatten(0, 1))[positions],
        expected.prediction_logits.flatten(0, 1)[positions], atol=1e-5, rtol=1e-5,
    )  # fmt: skip
    torch.testing.assert_close(
        model.sentence_logits(states[-1]), expected.seq_relationship_logits, atol=1e-5, rtol=1e-5
    )
    out = model(ids, types, mask, positions, targets, labels)
    assert out.sentence_loss_sum is not None
    loss = out.mlm_loss_sum / 4 + out.sentence_loss_sum / B
    torch.testing.assert_close(loss, expected.loss, atol=1e-5, rtol=1e-5)
    loss.backward()
    expected.loss.backward()
    compared = [
        ("encoder.embedding.word", theirs.mobilebert.embeddings.word_embeddings),
        ("encoder.embedding.position", theirs.mobilebert.embeddings.position_embeddings),
        ("mlm_head.dense", theirs.cls.predictions.transform.dense),
    ]
    if share is Share.NONE:
        layer = theirs.mobilebert.encoder.layer[1]
        f = model.shape.feed_forwards
        compared += [
            ("encoder.reduction.1.bottleneck.dense", layer.bottleneck.input.dense),
            ("encoder.bottleneck_attention.1.key", layer.attention.self.key),
            ("encoder.bottleneck_attention.1.norm", layer.attention.output.LayerNorm),
            (f"encoder.inner_ffn.{2 * f - 1}.outer", layer.output.dense),
            ("encoder.expansion.1.dense", layer.output.bottleneck.dense),
            ("encoder.expansion.1.norm", layer.output.bottleneck.LayerNorm),
        ]
    for ours, other in compared:
        found, gradient = model.get_parameter(f"{ours}.weight").grad, other.weight.grad
        assert found is not None
        if ours.endswith(".word"):  # transformers gives the row of padding no gradient
            found, gradient = found[1:], gradient[1:]
        torch.testing.assert_close(found, gradient, atol=1e-5, rtol=1e-4)


# --- an independent forward pass ------------------------------------------------------------------


def numpy_states(model: PretrainingModel) -> list[Any]:
    """The form of the paper and of its teacher, written out; transformers cannot run it."""
    shape = model.shape
    p = {name: tensor.detach().double().numpy() for name, tensor in model.named_parameters()}
    ids, types, mask = (grid.numpy() for grid in text())

    def dense(x: Any, name: str) -> Any:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        if shape.norm_type == "layer_norm":
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + shape.layer_norm_eps)
        return x * p[f"{name}.weight"] + p[f"{name}.bias"]

    def act(x: Any) -> Any:
        if shape.activation == "relu":
            return np.maximum(x, 0)
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    word, zero = p["encoder.embedding.word.weight"][ids], np.zeros((B, 1, E))
    three = [np.concatenate([word[:, 1:], zero], 1), word, np.concatenate([zero, word[:, :-1]], 1)]
    x = dense(np.concatenate(three, -1), "encoder.embedding.projection")
    x = x + p["encoder.embedding.position.weight"][:T] + p["encoder.embedding.token_type.weight"][types]
    x = norm(x, "encoder.embedding.norm")
    states = [x]
    f, w = shape.feed_forwards, shape.attention_width
    for layer in range(L):
        u = norm(dense(x, f"encoder.reduction.{layer}.bottleneck.dense"), f"encoder.reduction.{layer}.bottleneck.norm")
        name = f"encoder.bottleneck_attention.{layer}"
        q, k, v = (
            dense(x, f"{name}.{part}").reshape(B, T, N, w // N).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(w // N)
        scores = np.where(mask[:, None, None], scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        context = (weights @ v).transpose(0, 2, 1, 3).reshape(B, T, w)
        a = norm(dense(context, f"{name}.output") + u, f"{name}.norm")
        for entry in range(f):
            name = f"encoder.inner_ffn.{layer * f + entry}"
            a = norm(dense(act(dense(a, f"{name}.inner")), f"{name}.outer") + a, f"{name}.norm")
        x = norm(dense(a, f"encoder.expansion.{layer}.dense") + x, f"encoder.expansion.{layer}.norm")
        states.append(x)
    return states


@pytest.mark.parametrize("name", ["paper", "teacher"])
def test_the_forms_that_transformers_lacks(name: str) -> None:
    model = moved(form(**FORMS[name])).eval()
    states = model.encoder.hidden_states(*text())
    for mine, expected in zip(states, numpy_states(model), strict=True):
        np.testing.assert_allclose(mine.detach().numpy()[text()[2]], expected[text()[2].numpy()], atol=1e-5, rtol=1e-5)


# --- counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "parameters", "gflops"),
    [
        ("mobilebert", 25_359_104, 5.59), ("mobilebert_released", 24_581_888, 5.39),
        ("mobilebert_tiny", 15_485_696, 3.07), ("ib_bert_large", 294_205_184, 75.75),
    ],
)  # fmt: skip
def test_sizes_of_the_paper(preset: str, parameters: int, gflops: float) -> None:
    settings = f"scale=paper block=mobilebert model={preset} embed=e128 share=none tokenizer.vocab_size=30522"
    shape = compose(settings.split()).architecture()
    assert shape.parameters().encoder == parameters
    assert shape.encoder_flops(128) / 1e9 == pytest.approx(gflops, abs=0.005)


def per_layer(h: int, w: int, i: int, f: int, source: str) -> int:
    """Parameters of a layer: bottleneck, sources of attention, output, F networks, output bottleneck."""
    attention = {
        "body": 3 * (h * w + w), "shared": (h * w + 3 * w) + 2 * (w * w + w) + (h * w + w),
        "bottleneck": 3 * (w * w + w),
    }[source]  # fmt: skip
    return (h * w + 3 * w) + attention + (w * w + 3 * w) + f * (2 * w * i + i + 3 * w) + (w * h + 3 * h)


@pytest.mark.parametrize("trigram", [False, True])
@pytest.mark.parametrize("width", ["embedding", "hidden"])
@pytest.mark.parametrize("share", list(Share))
@pytest.mark.parametrize("name", FORMS)
def test_counts_equal_the_formulas_and_the_built_model(name: str, share: Share, width: str, trigram: bool) -> None:
    shape = form(share, **FORMS[name] | {"trigram": trigram, "table_width": width})
    model = build_model(shape, 0).eval()
    counted = shape.parameters()
    assert counted.with_heads == sum(p.numel() for p in model.parameters())
    at = H if width == "hidden" else E
    tables = V * E + (P + 2) * at + 2 * at
    projection = (3 if trigram else 1) * E * H + H
    assert (counted.embedding, counted.projection) == (tables, projection)
    if share is Share.NONE:
        each = per_layer(H, shape.attention_width, I, shape.feed_forwards, shape.attention_input)
        assert sum(counted.blocks.values()) == L * each
    ids = torch.ones(1, T, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.encoder(ids, ids)
    assert counter.get_total_flops() == shape.encoder_flops(T)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.token_logits(torch.ones(5, H))
    assert counter.get_total_flops() == shape.token_head_flops(5)


@pytest.mark.parametrize("name", FORMS)
def test_flops_of_scores_are_those_that_are_computed(name: str) -> None:
    shape = form(**FORMS[name])
    encoder = build_model(shape, 0).encoder.eval()
    ids = torch.ones(1, T, dtype=torch.int64)
    counts = []
    targets: tuple[AttentionTarget | None, ...] = (None, "scores")
    for target in targets:
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            observe(encoder, ids, ids, None, (2, 3), target)
        counts.append(counter.get_total_flops())
    assert counts[1] - counts[0] == 2 * scores_flops(shape, T)


@pytest.mark.parametrize("name", FORMS)
def test_observed_attention_is_what_the_layer_uses(name: str) -> None:
    encoder = moved(form(**FORMS[name])).encoder.eval()
    ids, types, mask = text()
    seen = observe(encoder, ids, types, mask, (1, 2, 3), "probabilities")
    x, layer = encoder.hidden_states(ids, types, mask)[1], 1
    attention = blocks_of(encoder, "bottleneck_attention")[layer]
    u = blocks_of(encoder, "reduction")[layer].bottleneck(x)
    shared = encoder.shape.attention_input == "shared"
    source = attention.shared(x) if shared else {"body": x, "bottleneck": u}[encoder.shape.attention_input]
    q, k = (m(source).view(B, T, N, -1).transpose(1, 2) for m in (attention.query, attention.key))
    scores = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).masked_fill(~mask[:, None, None], -1e4)
    torch.testing.assert_close(seen.attention[layer], scores.softmax(-1), atol=1e-6, rtol=1e-5)


# --- parts ----------------------------------------------------------------------------------------


def test_no_norm_starts_as_the_identity_without_decay() -> None:
    model = build_model(form(**PAPER), 0)
    norms = [module for module in model.modules() if isinstance(module, NoNorm)]
    assert len(norms) == 1 + L * (1 + 1 + 4 + 1)
    x = torch.randn(5, H)
    assert torch.equal(norms[0](x), x)
    excluded = {id(p) for p in split_parameters(model)[1]}
    assert all(id(p) in excluded for norm in norms for p in norm.parameters())
    assert isinstance(model.mlm_head.norm, nn.LayerNorm)


def test_a_no_norm_without_residual_folds_into_its_product() -> None:
    bottleneck = blocks_of(moved(form(**PAPER)).encoder, "reduction")[0].bottleneck
    x = torch.randn(4, H)
    weight = bottleneck.dense.weight * bottleneck.norm.weight[:, None]
    bias = bottleneck.dense.bias * bottleneck.norm.weight + bottleneck.norm.bias
    torch.testing.assert_close(F.linear(x, weight, bias), bottleneck(x), atol=1e-6, rtol=1e-5)


def test_a_trigram_is_next_own_previous() -> None:
    shape = form(**PAPER | {"embedding_norm": False})
    embedding: FactorisedEmbedding = build_model(shape, 0, pooler=False).encoder.embedding
    ids = torch.tensor([[7, 8, 9]])
    with torch.no_grad():
        for table in (embedding.position, embedding.token_type):
            assert table is not None
            table.weight.zero_()
    words = embedding.word.weight
    matrix = embedding.projection.get_parameter("weight")
    after, own, before = torch.split(matrix, E, 1)
    out = embedding(ids, torch.zeros_like(ids))[0]
    torch.testing.assert_close(out[0], after @ words[8] + own @ words[7])
    torch.testing.assert_close(out[1], after @ words[9] + own @ words[8] + before @ words[7])
    torch.testing.assert_close(out[2], own @ words[9] + before @ words[8])


@pytest.mark.parametrize("name", FORMS)
def test_dropout_is_that_of_the_embedding_and_of_the_output_bottleneck(name: str) -> None:
    from albert_ablate.model.dropout import Dropout

    encoder = build_model(form(**FORMS[name] | {"hidden_dropout": 0.1}), 0).encoder
    places = [place for place, module in encoder.named_modules() if isinstance(module, Dropout)]
    assert places == ["embedding.dropout", *(f"expansion.{layer}.dropout" for layer in range(L))]


@pytest.mark.parametrize("share", list(Share))
@pytest.mark.parametrize("name", FORMS)
def test_chosen_rows_are_those_of_all_states(name: str, share: Share) -> None:
    encoder = moved(form(share, **FORMS[name])).encoder.eval()
    ids, types, mask = text()
    rows = torch.tensor([0, 4, 11, 12, 22, 4])
    torch.testing.assert_close(
        encoder(ids, types, mask, rows=rows), encoder(ids, types, mask).flatten(0, 1)[rows], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", FORMS)
def test_padded_keys_are_not_seen(name: str) -> None:
    """Beyond its end a text's last position reads zeros, or the piece of padding that stands there."""
    encoder = moved(form(**FORMS[name] | {"trigram": False})).encoder.eval()
    ids, types, mask = text()
    whole = encoder(ids, types, mask)
    short = encoder(ids[1:2, :5], types[1:2, :5])
    torch.testing.assert_close(whole[1, :5], short[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_a_step_in_both_formats(name: str, gpu: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if gpu:
        monkeypatch.setattr(cpu, "by_hand", lambda x: False)
    shape = form(Share.ATTENTION, **FORMS[name] | {"initializer_range": 0.1})
    model = build_model(shape, 0)
    exact = build_model(shape, 0).double()
    ids, types, mask = text()
    arguments = (ids, types, mask, torch.tensor([1, 3, 12, 24]), torch.tensor([7, 9, 30, 11]), torch.tensor([0, 1, 0]))
    with nullcontext() if precision == "fp32" else torch.autocast("cpu", dtype=torch.bfloat16):
        out, states = model(*arguments), model.encoder(ids, types, mask)
    assert states.dtype == (torch.float32 if not shape.has_statistics or precision == "fp32" else torch.bfloat16)
    expected = exact(*arguments)
    close = 1e-5 if precision == "fp32" else 2e-2
    torch.testing.assert_close(out.mlm_loss_sum.double(), expected.mlm_loss_sum.double(), rtol=close, atol=close)
    out.mlm_loss_sum.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.encoder.parameters())


def test_no_norm_and_relu_in_standard_layers() -> None:
    """Each is a switch of its own; the paths written by hand, which have neither, are not taken."""
    ids, types, mask = text()
    for switches in ({"norm_type": "no_norm"}, {"activation": "relu"}, {"norm_type": "no_norm", "norm": "pre"}):
        model = moved(form(**switches)).double().eval()  # type: ignore[arg-type]
        x = model.encoder.embedding(ids, types)
        for layer in range(L):
            attention, ffn = blocks_of(model.encoder, "attention")[layer], blocks_of(model.encoder, "ffn")[layer]
            first = "norm" in switches
            read = attention.norm(x) if first else x
            q, k, v = (
                m(read).view(B, T, N, -1).transpose(1, 2) for m in (attention.query, attention.key, attention.value)
            )
            bias = torch.where(mask, 0.0, -1e4).double()[:, None, None]
            context = (
                ((q @ k.transpose(2, 3) / math.sqrt(H // N) + bias).softmax(-1) @ v).transpose(1, 2).reshape(B, T, H)
            )
            x = x + attention.output(context) if first else attention.norm(x + attention.output(context))
            inner = ffn.inner(ffn.norm(x) if first else x)
            act = F.relu(inner) if "activation" in switches else F.gelu(inner, approximate="tanh")
            x = x + ffn.outer(act) if first else ffn.norm(x + ffn.outer(act))
        if model.encoder.norm is not None:
            x = model.encoder.norm(x)
        torch.testing.assert_close(model.encoder(ids, types, mask), x, atol=1e-9, rtol=1e-9)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("model.feed_forwards=4", r"model\.feed_forwards=4 \(model=nano\): no effect with block=standard\. Use block"),
        ("model=mobilebert_nano block=standard", r"model\.block_width=48 \(model=mobilebert_nano\): no effect"),
        ("block=mobilebert model.norm=pre", r"model\.norm=pre: no effect with block=mobilebert.*Use model\.norm=post"),
        ("block=mobilebert model.residual_init=depth", r"model\.residual_init=depth: no effect"),
        ("block=mobilebert model.block_width=50", r"model\.heads=3 does not divide the width 50 inside a layer"),
        ("model.lm_head=extended model.projection=always embed.size=256", r"extended with embed\.size=256"),
        ("method=electra model.table_width=hidden", r"position tables of different widths cannot be tied"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(words.split())


def test_the_axis_leaves_other_runs_alone() -> None:
    plain, chosen = compose(["model=nano"]), compose(["model=nano", "block=mobilebert"])
    assert identity(plain, "0", "fp32") != identity(chosen, "0", "fp32")
    assert chosen.architecture().attention_width == 48  # a quarter
    assert chosen.architecture().layer_type == "mobilebert"
