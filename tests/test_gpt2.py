"""GPT-2's form: pre-norm blocks, no norm on the embedding, depth-scaled initial values, a head without transform."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from modelhelpers import blocks_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from albert_ablate.axes import Share
from albert_ablate.door.compose import compose
from albert_ablate.evaluation import similarity
from albert_ablate.model import cpu
from albert_ablate.model.architecture import Architecture
from albert_ablate.model.blocks import AttentionBlock, FeedForwardBlock
from albert_ablate.model.imitation import observe
from albert_ablate.model.pretraining import PretrainingModel, build_model

V, H, L, N, P = 97, 48, 3, 4, 40
GPT2: dict[str, Any] = {
    "norm": "pre", "embedding_norm": False, "residual_init": "depth", "lm_head": "plain", "pattern": "causal",
    "layer_norm_eps": 1e-5, "type_vocab_size": 0,
}  # fmt: skip
POST: dict[str, Any] = {"pattern": "causal"}
#: A switch each; two masked models that have a part of the form; and a factorised one.
FORMS: dict[str, dict[str, Any]] = {
    "gpt2": GPT2, "norm": {"norm": "pre"}, "embedding": {"embedding_norm": False}, "head": {"lm_head": "plain"},
    "factorised": GPT2 | {"embedding_size": 16}, "narrow head": {"lm_head": "plain", "embedding_size": 16},
    "projected": GPT2 | {"projection": True},
}  # fmt: skip


def form(share: Share = Share.NONE, **other: Any) -> Architecture:
    sizes: dict[str, Any] = {
        "vocab_size": V, "embedding_size": H, "hidden_size": H, "layers": L, "heads": N, "intermediate_size": 4 * H,
        "max_positions": P,
    }  # fmt: skip
    return Architecture(**sizes | {"share": share} | other)


def moved(shape: Architecture, pooler: bool = False) -> PretrainingModel:
    """Every parameter away from its initial value: zero biases would hide a missing one."""
    model = build_model(shape, 3, pooler)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


def text(batch: int = 3, length: int = 17) -> Tensor:
    return torch.randint(5, V, (batch, length), generator=torch.Generator().manual_seed(length))


def as_plain_modules(patched: pytest.MonkeyPatch) -> None:
    for block in (AttentionBlock, FeedForwardBlock):
        patched.setattr(block, "on_cpu", lambda self, low: None)


def as_on_gpu(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(cpu, "by_hand", lambda x: False)


PATHS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "by hand": lambda patched: None, "plain": as_plain_modules, "as on a GPU": as_on_gpu,
}  # fmt: skip
every_path = pytest.mark.parametrize("path", PATHS)


# --- transformers -------------------------------------------------------------------------------------


def gpt2(model: PretrainingModel) -> tuple[GPT2LMHeadModel, dict[str, Any]]:
    """transformers' GPT-2 with the weights of ours; our name -> its module.

    Layers that share a block here are one object there.
    """
    config = GPT2Config(  # type: ignore[call-arg]
        vocab_size=V, n_positions=P, n_embd=H, n_layer=L, n_head=N, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        use_cache=False, attn_implementation="eager",
    )  # fmt: skip
    theirs = GPT2LMHeadModel(config)
    body: Any = theirs.transformer
    pairs: dict[str, Any] = {}

    def take(name: str, module: Any, transposed: bool = True) -> None:
        ours = model.get_submodule(name)
        with torch.no_grad():
            module.weight.copy_(ours.weight.T if transposed else ours.weight)
            module.bias.copy_(ours.bias)
        pairs[name] = module

    for layer, entries in enumerate(model.encoder.layer_blocks):
        block = body.h[layer]
        used = dict(entries)
        if used["attention"] < layer:
            block.attn, block.ln_1 = body.h[used["attention"]].attn, body.h[used["attention"]].ln_1
        if used["ffn"] < layer:
            block.mlp, block.ln_2 = body.h[used["ffn"]].mlp, body.h[used["ffn"]].ln_2
        attention, ffn = (f"encoder.{kind}.{entry}" for kind, entry in entries)
        ours: Any = model.encoder.get_submodule(f"attention.{used['attention']}")
        with torch.no_grad():
            three = (ours.query, ours.key, ours.value)
            block.attn.c_attn.weight.copy_(torch.cat([m.weight for m in three]).T)
            block.attn.c_attn.bias.copy_(torch.cat([m.bias for m in three]))
        pairs[attention] = block.attn.c_attn
        take(f"{attention}.output", block.attn.c_proj)
        take(f"{attention}.norm", block.ln_1, transposed=False)
        take(f"{ffn}.inner", block.mlp.c_fc)
        take(f"{ffn}.outer", block.mlp.c_proj)
        take(f"{ffn}.norm", block.ln_2, transposed=False)
    take("encoder.norm", body.ln_f, transposed=False)
    with torch.no_grad():
        body.wte.weight.copy_(model.encoder.embedding.word.weight)
        body.wpe.weight.copy_(model.encoder.embedding.position.weight)
    pairs["encoder.embedding.word"], pairs["encoder.embedding.position"] = body.wte, body.wpe
    return theirs, pairs


def gpt2_gradients(pairs: dict[str, Any]) -> dict[str, Tensor]:
    """Their gradients under the names of our parameters."""
    found = {}  # type: ignore[var-annotated]
    for name, module in pairs.items():
        weight, bias = module.weight.grad, None if not hasattr(module, "bias") else module.bias.grad
        if type(module).__name__ == "Conv1D":
            weight = weight.T
        if name.count(".") == 2 and ".attention." in name:
            for part, w, b in zip(("query", "key", "value"), weight.chunk(3), bias.chunk(3), strict=True):  # type: ignore[union-attr]
                found |= {f"{name}.{part}.weight": w, f"{name}.{part}.bias": b}
            continue
        found[f"{name}.weight"] = weight
        if bias is not None:
            found[f"{name}.bias"] = bias
    return found


def causal_loss(model: PretrainingModel, ids: Tensor) -> Tensor:
    """Mean loss of the T - 1 next pieces of each sequence, as transformers averages."""
    grid = torch.arange(ids.numel()).view(ids.shape)[:, :-1].flatten()
    out = model(ids, torch.zeros_like(ids), None, grid, ids[:, 1:].flatten(), None)
    return out.mlm_loss_sum / len(grid)


def assert_gradients(model: PretrainingModel, expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    mine = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert mine.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(mine[name], gradient, atol=tolerance, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")  # type: ignore[misc]


@every_path
@pytest.mark.parametrize("share", list(Share))
def test_states_loss_and_gradients_are_those_of_transformers(
    share: Share, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = moved(form(share, **GPT2))
    theirs, pairs = gpt2(model)
    PATHS[path](monkeypatch)
    ids = text()
    expected = theirs(ids, labels=ids, output_hidden_states=True)
    states = model.encoder.hidden_states(ids, torch.zeros_like(ids))
    assert len(states) == len(expected.hidden_states) == L + 1
    torch.testing.assert_close(states, list(expected.hidden_states), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.token_logits(states[-1]), expected.logits, atol=1e-5, rtol=0)
    loss = causal_loss(model, ids)
    torch.testing.assert_close(loss, expected.loss, atol=1e-5, rtol=0)
    loss.backward()
    expected.loss.backward()
    assert_gradients(model, gpt2_gradients(pairs))


def test_the_comparison_sees_every_part_of_the_form() -> None:
    ids = text()
    for change in (
        {"layer_norm_eps": 1e-2}, {"activation": "gelu_erf"}, {"norm": "post"}, {"embedding_norm": True},
        {"lm_head": "transform"}, {"pattern": "full"},
    ):  # fmt: skip
        right, other = moved(form(**GPT2)), moved(form(**GPT2 | change))
        other.load_state_dict(right.state_dict(), strict=False)
        with torch.no_grad():
            expected = gpt2(right)[0](ids).logits
            found = other.token_logits(other.encoder(ids, ids))
        assert not torch.allclose(found, expected, atol=1e-5, rtol=0), change


def test_attention_that_a_student_imitates_is_that_of_transformers() -> None:
    model = moved(form(**GPT2))
    ids = text()
    with torch.no_grad():
        expected = gpt2(model)[0](ids, output_attentions=True).attentions
        seen = observe(model.encoder, ids, ids, None, range(1, L + 1), "probabilities")
    torch.testing.assert_close(list(seen.attention), list(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [Share.NONE, Share.ALL])
def test_a_factorised_model_is_that_of_opt(share: Share) -> None:
    """OPT adds positions after its projection, which has no bias: the table is projected here."""
    e = 16
    model = moved(form(share, **GPT2 | {"embedding_size": e}))
    config = OPTConfig(  # type: ignore[call-arg]
        vocab_size=V, hidden_size=H, num_hidden_layers=L, ffn_dim=4 * H, num_attention_heads=N, dropout=0.0,
        max_position_embeddings=P, word_embed_proj_dim=e, activation_function="gelu_new", attention_dropout=0.0,
        layerdrop=0.0, use_cache=False, attn_implementation="eager",
    )  # fmt: skip
    theirs = OPTForCausalLM(config)
    body: Any = theirs.model.decoder
    embedding: Any = model.encoder.embedding
    with torch.no_grad():
        body.embed_tokens.weight.copy_(embedding.word.weight)
        body.project_in.weight.copy_(embedding.projection.weight)
        body.embed_positions.weight[2:].copy_(embedding.projection(embedding.position.weight))
        body.project_out.weight.copy_(model.mlm_head.dense.weight)  # type: ignore[union-attr]
    body.final_layer_norm.load_state_dict(model.encoder.norm.state_dict())  # type: ignore[union-attr]
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
    for layer, entries in zip(body.layers, model.encoder.layer_blocks, strict=True):
        attention, ffn = (model.encoder.get_submodule(f"{kind}.{entry}") for kind, entry in entries)
        for there, here in names.items():
            getattr(layer.self_attn, there).load_state_dict(getattr(attention, here).state_dict())
        layer.self_attn_layer_norm.load_state_dict(attention.norm.state_dict())  # type: ignore[union-attr]
        layer.fc1.load_state_dict(ffn.inner.state_dict())  # type: ignore[union-attr]
        layer.fc2.load_state_dict(ffn.outer.state_dict())  # type: ignore[union-attr]
        layer.final_layer_norm.load_state_dict(ffn.norm.state_dict())  # type: ignore[union-attr]
    ids = text()
    expected = theirs(ids, labels=ids)
    loss = causal_loss(model, ids)
    torch.testing.assert_close(model.token_logits(model.encoder(ids, ids)), expected.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(loss, expected.loss, atol=1e-5, rtol=0)
    loss.backward()
    expected.loss.backward()
    head: Any = model.mlm_head
    torch.testing.assert_close(head.dense.weight.grad, body.project_out.weight.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embedding.word.weight.grad, body.embed_tokens.weight.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("share", [Share.NONE, Share.ALL])
def test_the_causal_pattern_alone_is_that_of_a_bert_decoder(share: Share) -> None:
    model = moved(form(share, **POST))
    config = BertConfig(  # type: ignore[call-arg]
        vocab_size=V, hidden_size=H, num_hidden_layers=L, num_attention_heads=N, intermediate_size=4 * H,
        max_position_embeddings=P, hidden_act="gelu_new", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-12, is_decoder=True, use_cache=False, attn_implementation="eager",
    )  # fmt: skip
    theirs: Any = BertLMHeadModel(config)
    embedding, head = model.encoder.embedding, theirs.cls.predictions
    for there, here in {"word_embeddings": "word", "position_embeddings": "position", "token_type_embeddings":
                        "token_type", "LayerNorm": "norm"}.items():  # fmt: skip
        getattr(theirs.bert.embeddings, there).load_state_dict(getattr(embedding, here).state_dict())
    first: Any = None
    for number, entries in enumerate(model.encoder.layer_blocks):
        layer = theirs.bert.encoder.layer[number]
        attention, ffn = (model.encoder.get_submodule(f"{kind}.{entry}") for kind, entry in entries)
        assert isinstance(attention, AttentionBlock)
        assert isinstance(ffn, FeedForwardBlock)
        for part in ("query", "key", "value"):
            getattr(layer.attention.self, part).load_state_dict(getattr(attention, part).state_dict())
        layer.attention.output.dense.load_state_dict(attention.output.state_dict())
        layer.attention.output.LayerNorm.load_state_dict(attention.norm.state_dict())
        layer.intermediate.dense.load_state_dict(ffn.inner.state_dict())
        layer.output.dense.load_state_dict(ffn.outer.state_dict())
        layer.output.LayerNorm.load_state_dict(ffn.norm.state_dict())
        first = first or layer
        if share is Share.ALL:
            theirs.bert.encoder.layer[number] = first
    mine: Any = model.mlm_head
    head.transform.dense.load_state_dict(mine.dense.state_dict())
    head.transform.LayerNorm.load_state_dict(mine.norm.state_dict())
    with torch.no_grad():
        head.bias.copy_(mine.bias)
        head.decoder.bias.copy_(mine.bias)
    ids = text()
    expected = theirs(ids, labels=ids)
    loss = causal_loss(model, ids)
    torch.testing.assert_close(loss, expected.loss, atol=1e-5, rtol=0)
    loss.backward()
    expected.loss.backward()
    query = first.attention.self.query.weight.grad
    block: Any = blocks_of(model.encoder, "attention")[0]
    torch.testing.assert_close(block.query.weight.grad, query, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        embedding.word.weight.grad, theirs.bert.embeddings.word_embeddings.weight.grad, atol=1e-5, rtol=1e-4
    )


# --- one function on all paths --------------------------------------------------------------------------


def masks() -> dict[str, Tensor | None]:
    tails = torch.ones(3, 17, dtype=torch.bool)
    tails[0, 11:] = tails[2, 1:] = False
    holes = tails.clone()
    holes[1, 4] = False
    return {"none": None, "tails": tails, "holes": holes}


def formula(model: PretrainingModel, ids: Tensor, mask: Tensor | None) -> Tensor:
    """The last states, (B, T, H), written out once more, with masks as infinite scores."""
    shape, encoder = model.shape, model.encoder
    assert shape.norm == "pre"
    embedding: Any = encoder.embedding
    x = embedding.word(ids) + embedding.position.weight[: ids.shape[1]]
    if embedding.token_type is not None:
        x = x + embedding.token_type.weight[0]
    if shape.embedding_norm:
        x = embedding.norm(x)
    x = embedding.projection(x)
    seen = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool)[None, None]
    if shape.pattern == "causal":
        seen = seen.tril()
    if mask is not None:
        seen = seen & mask[:, None, None]
    for entries in encoder.layer_blocks:
        attention, ffn = (encoder.get_submodule(f"{kind}.{entry}") for kind, entry in entries)
        assert isinstance(attention, AttentionBlock)
        assert isinstance(ffn, FeedForwardBlock)
        read = attention.norm(x)
        q, k, v = (
            part(read).unflatten(-1, (N, -1)).transpose(1, 2)
            for part in (attention.query, attention.key, attention.value)
        )
        scores = (q @ k.mT / math.sqrt(H / N)).masked_fill(~seen, -1e4)
        x = x + attention.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        x = x + ffn.outer(F.gelu(ffn.inner(ffn.norm(x)), approximate="tanh"))
    norm: Any = encoder.norm
    return norm(x)


PRE = {"gpt2": GPT2, "factorised": GPT2 | {"embedding_size": 16}, "masked": {"norm": "pre"}}


@every_path
@pytest.mark.parametrize("rows", [None, [3, 1, 30, 18, 0, 18]], ids=str)
@pytest.mark.parametrize("share", [Share.NONE, Share.ALL])
@pytest.mark.parametrize("kind", PRE)
def test_values_and_gradients_of_every_path(
    kind: str, share: Share, rows: list[int] | None, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = moved(form(share, **PRE[kind])).double()
    encoder, ids = model.encoder, text()
    PATHS[path](monkeypatch)
    index = None if rows is None else torch.tensor(rows)
    for mask in masks().values():
        states = formula(model, ids, mask)
        expected = states if index is None else states.flatten(0, 1)[index]
        weights = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        for encoder.recompute in (False, True):
            found = encoder(ids, torch.zeros_like(ids), mask, rows=index)
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-9)
            parameters = list(encoder.parameters())
            torch.testing.assert_close(
                torch.autograd.grad((found * weights).sum(), parameters),
                torch.autograd.grad((expected * weights).sum(), parameters, retain_graph=True),
                atol=1e-9, rtol=1e-9,
            )  # fmt: skip


@pytest.mark.parametrize("rates", [(0.3, 0.0), (0.0, 0.3), (0.2, 0.2)])
def test_dropout_has_the_gradient_of_its_own_noise(rates: tuple[float, float]) -> None:
    """With noise held, the gradient by hand is the slope of the function."""
    model = moved(form(Share.ALL, **GPT2, hidden_dropout=rates[0], attention_dropout=rates[1])).double()
    ids, weights = text(2, 5), torch.randn(2, 5, H, dtype=torch.float64)

    def function(bias: Tensor) -> Tensor:
        torch.manual_seed(3)
        model.encoder.embedding.position.weight.data[:5] = bias
        x = model.encoder(ids, ids)
        return (x * weights).sum()

    at = model.encoder.embedding.position.weight.detach()[:5].clone()
    model.zero_grad()
    base = function(at)
    base.backward()
    gradient = model.encoder.embedding.position.weight.grad
    assert gradient is not None
    direction = torch.randn(at.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        slope = (function(at + 1e-6 * direction) - function(at - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close((gradient[:5] * direction).sum(), slope, rtol=1e-6, atol=1e-6)
    model.eval()
    with torch.no_grad():
        assert not torch.equal(function(at), base)


@pytest.mark.parametrize("path", ["by hand", "as on a GPU"])
def test_half_precision_is_near_full_precision(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = moved(form(**GPT2)), text()
    full = causal_loss(model, ids)
    full.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    PATHS[path](monkeypatch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = model.encoder.hidden_states(ids, ids)
        assert [state.dtype for state in states] == [torch.float32] * L + [torch.bfloat16], "the sum is not rounded"
        half = causal_loss(model, ids)
    half.backward()
    assert half.item() == pytest.approx(full.item(), rel=0.01)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad - gradients[name]).norm() < 0.05 * gradients[name].norm() + 1e-3, name


@every_path
@pytest.mark.parametrize("kind", ["gpt2", "post"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_the_past_does_not_see_the_future(
    kind: str, precision: torch.dtype, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit, at every cut, with padding and at chosen rows; and the present does change."""
    model = moved(form(**{"gpt2": GPT2, "post": POST}[kind]))
    PATHS[path](monkeypatch)
    ids, types = text(2, 13), torch.zeros(2, 13, dtype=torch.int64)
    padded = torch.ones(2, 13, dtype=torch.bool)
    padded[1, 9:] = False
    for mask in (None, padded):
        for cut in (1, 6, 12):
            other = ids.clone()
            other[:, cut:] = (other[:, cut:] + 7) % V
            rows = torch.tensor([0, cut - 1, 13, 13 + cut - 1])
            with torch.autocast("cpu", dtype=precision, enabled=precision == torch.bfloat16):
                before, after = (model.encoder(one, types, mask) for one in (ids, other))
                chosen = [model.encoder(one, types, mask, rows=rows) for one in (ids, other)]
            assert torch.equal(before[:, :cut], after[:, :cut])
            assert not torch.equal(before[:, cut], after[:, cut])
            assert torch.equal(*chosen)


@torch.no_grad()
def test_similarity_leaves_the_last_norm_out() -> None:
    model, ids = moved(form(**GPT2)), text()
    plain = model.encoder.hidden_states(ids, ids, final_norm=False)
    states = model.encoder.hidden_states(ids, ids)
    assert all(torch.equal(a, b) for a, b in zip(plain[:-1], states[:-1], strict=True))
    norm: Any = model.encoder.norm
    assert torch.equal(norm(plain[-1]), states[-1])
    assert torch.equal(states[-1], model.encoder(ids, ids))
    assert len(model.encoder.hidden_states(ids, ids, layers=2)) == 3
    assert torch.equal(model.encoder.hidden_states(ids, ids, layers=2)[-1], states[2])

    class Read:
        input_ids, type_ids, mask = ids.int(), ids.int(), torch.ones(3, 17, dtype=torch.bool)
        positions, targets = torch.tensor([0]), ids[0, :1]

        def __len__(self) -> int:
            return 3

    found = similarity.layer_similarity(model.encoder, [Read()])  # type: ignore[list-item]
    assert found["l2"][-1] == pytest.approx((plain[-1] - plain[-2]).norm(dim=-1).mean().item(), rel=1e-5)


# --- heads, initial values, counts ----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["by hand", "as on a GPU"])
@pytest.mark.parametrize("embedding", [H, 16])
def test_the_loss_of_a_head_without_bias(embedding: int, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PATHS[path](monkeypatch)
    model = moved(form(lm_head="plain", embedding_size=embedding)).double()
    head: Any = model.mlm_head
    assert sorted(name for name, _ in head.named_parameters()) == (["dense.weight"] if embedding != H else [])
    table = torch.randn(V, embedding, dtype=torch.float64, requires_grad=True)
    states = torch.randn(7, H, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, V, (7,))
    inputs = [states, table, *head.parameters()]
    narrow = states if embedding == H else states @ head.dense.weight.T
    logits = narrow @ table.T
    torch.testing.assert_close(head(states, table), logits)
    expected = F.cross_entropy(logits, targets, reduction="sum")
    loss, hits = head.loss(states, table, targets)
    torch.testing.assert_close(loss, expected)
    assert hits.item() == (logits.argmax(-1) == targets).sum().item()
    torch.testing.assert_close(torch.autograd.grad(loss * 0.3, inputs), torch.autograd.grad(expected * 0.3, inputs))


#: Standard deviation of a normal distribution that is truncated at two standard deviations.
TRUNCATED = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))


@pytest.mark.parametrize("share", list(Share))
def test_initial_values(share: Share) -> None:
    """Last matrices of sub-layers have a factor of 1 / sqrt(2 L), in every layer and whatever is shared."""
    sizes: dict[str, Any] = {"hidden_size": 96, "embedding_size": 96, "intermediate_size": 384, "layers": 8}
    depth = build_model(form(share, **GPT2 | sizes), 1, pooler=False)
    plain = build_model(form(share, **GPT2 | sizes | {"residual_init": "plain"}), 1, pooler=False)
    scaled = 0
    for (name, values), before in zip(depth.named_parameters(), plain.parameters(), strict=True):
        last = name.endswith(("output.weight", "outer.weight"))
        scaled += last
        torch.testing.assert_close(values, before / 4 if last else before, rtol=1e-5, atol=0)
        if last or name.endswith(("query.weight", "inner.weight", "word.weight", "position.weight")):
            assert values.std().item() == pytest.approx(0.02 * TRUNCATED / (4 if last else 1), rel=0.03), name
    assert scaled == sum(len(blocks_of(depth.encoder, kind)) for kind in ("attention", "ffn"))


@pytest.mark.parametrize(("share", "embedding"), [(Share.NONE, 96), (Share.ALL, 96), (Share.ALL, 32)])
def test_the_initial_loss(share: Share, embedding: int) -> None:
    """Logits of states of unit variance have the variance std^2 H, which adds half of it to ln V."""
    sizes = {"vocab_size": 2000, "hidden_size": 96, "embedding_size": embedding, "intermediate_size": 384}
    model = build_model(form(share, **GPT2 | sizes), 1, pooler=False)
    ids = torch.randint(0, 2000, (16, 32), generator=torch.Generator().manual_seed(0))
    std = 0.02 * TRUNCATED
    spread = std**2 * 96 if embedding == 96 else std**4 * 96 * embedding  # two matrices between state and logit
    with torch.no_grad():
        assert causal_loss(model, ids).item() == pytest.approx(math.log(2000) + spread / 2, abs=0.01)


@pytest.mark.parametrize(
    ("size", "expected"),
    [("gpt2", 124_439_808), ("gpt2_medium", 354_823_168), ("gpt2_large", 774_030_080), ("gpt2_xl", 1_557_611_200)],
)
def test_the_counts_of_gpt2(size: str, expected: int) -> None:
    """With its own vocabulary of 50,257 pieces."""
    settings = ["method=causal", "objective=none", f"model={size}", "embed=full", "share=none"]
    config = compose(["scale=paper", *settings, "tokenizer.vocab_size=50257"])
    counts = config.architecture().parameters()
    assert counts.encoder == expected
    assert (counts.heads["mlm_head"], counts.projection, config.has_pooler) == (0, 0, False)
    assert config.architecture().pattern == "causal"


@pytest.mark.parametrize("share", list(Share))
@pytest.mark.parametrize("kind", FORMS)
def test_counts_equal_the_built_model(kind: str, share: Share) -> None:
    shape = form(share, **FORMS[kind])
    model = build_model(shape, 0).eval()
    counts = shape.parameters()

    def total(*modules: nn.Module | None) -> int:
        return sum(p.numel() for module in modules if module is not None for p in module.parameters())

    assert counts.encoder == total(model.encoder)
    assert counts.with_heads == total(model) == sum(tensor.numel() for tensor in model.state_dict().values())
    assert counts.norm == total(model.encoder.norm)
    assert counts.heads["mlm_head"] == total(model.mlm_head)
    assert counts.projection == total(model.encoder.embedding.projection)
    named = counts.as_dict()
    assert ("norm" in named) == (shape.norm == "pre")
    ids = torch.ones(1, 20, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        states = model.encoder(ids, ids)
        model.token_logits(states[0, 1:4])
        model.pooler(states)
    assert counter.get_total_flops() == shape.forward_flops(20, 3)
