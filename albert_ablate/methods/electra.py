"""ELECTRA: a generator replaces tokens, and the encoder learns which ones (Clark et al., ICLR 2020)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from albert_ablate.config.schema import MaskingConfig, RunConfig
from albert_ablate.methods.method import Measure, Method, Term, sentence_term
from albert_ablate.model.architecture import Architecture, ParameterCount

if TYPE_CHECKING:  # they load torch
    import numpy as np
    from torch import Tensor

    from albert_ablate.data.batches import Batch
    from albert_ablate.data.corrupting import CorruptedBatches
    from albert_ablate.data.store import TokenStore
    from albert_ablate.model.electra import ElectraModel, Head, Judged
    from albert_ablate.model.generator import Corrupted
    from albert_ablate.model.sampling import Sampling

#: Keeps a mean over no position finite (released code).
EPSILON = 1e-6


class Corrupting(Method):
    """A method whose encoder reads text in which a generator has replaced tokens, and learns from that.

    The loss is the generator's masked-LM loss, the encoder's token loss and, if the objective has one, the sentence
    loss of the encoder, read from the corrupted text.
    """

    measures = frozenset({Measure.SENTENCE_HEAD})  # the encoder never reads [MASK]
    #: What the encoder predicts.
    head: ClassVar["Head"]

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self._sentences = config.objective.name.trains_sentences

    @property
    def generator(self) -> Architecture | None:
        """The shape of the generator; None if it is no network."""
        from albert_ablate.model.generator import generator_shape

        m = self.config.method
        if m.generator != "learned":
            return None
        return generator_shape(self.config.architecture(), m.generator_width, m.generator_depth)

    def parameters(self) -> ParameterCount:
        """Encoder, pooler and heads, and what the generator does not share."""
        counted = self.config.architecture().parameters()
        heads = {name: count for name, count in counted.heads.items() if name != "mlm_head"} | self._head_parameters()
        generator = self.generator
        if generator is not None:
            own = generator.parameters()
            tie = self.config.method.tie
            shared = {"none": 0, "embeddings": own.embedding, "all": own.encoder}[tie]
            heads |= {"generator": own.encoder - shared, "generator_head": own.heads["mlm_head"]}
        return replace(counted, heads=heads)

    def flops(self) -> float:
        """FLOPs of three forward passes of both networks; the backward pass counts as two."""
        shape, length, generator = self.config.architecture(), self.config.pairs.max_length, self.generator
        forward = shape.forward_flops(length, 0) + self._head_flops(length)
        if generator is not None:
            forward += generator.forward_flops(length, self.masked) - generator.pooler_flops()
        return 3 * forward

    def lookup_flops(self) -> float:
        """Those of both networks."""
        return super().lookup_flops() * (1 if self.generator is None else 2)

    @property
    def masking(self) -> MaskingConfig:
        """The settings of masking, with ELECTRA's fill unless another is set."""
        masking = self.config.masking
        return replace(masking, fill="electra") if masking.fill == "auto" else masking

    def build(self, parents: Mapping[str, Path]) -> "ElectraModel":
        """Encoder, pooler, heads and generator."""
        from albert_ablate.model.electra import build_electra

        c = self.config
        released = c.method.initialisation == "released"
        return build_electra(c.architecture(), self.generator, c.method.tie, self.head, c.seed, released)

    def batches(
        self, store: "TokenStore", word_starts: "np.ndarray", share: tuple[int, int] = (0, 1)
    ) -> "CorruptedBatches":
        """Batches with the mask positions of masked LM, ELECTRA's fill unless another is set, and noise."""
        from albert_ablate.data.corrupting import CorruptedBatches

        c = self.config
        return CorruptedBatches(
            c.method.generator, c.tokenizer.vocab_size,
            store, word_starts, c.objective.name, c.pairs, self.masking, c.batch.size, c.seed, share,
        )  # fmt: skip

    def corrupted(self, model: "ElectraModel", batch: "Batch") -> "Corrupted":
        """The batch with the generator's samples."""
        return model.corrupted(batch, self._sampling(batch), self._repeated)

    def _sampling(self, batch: "Batch") -> "Sampling | None":
        """How the generator samples; None if it is no network."""
        from albert_ablate.model.sampling import Sampling

        m = self.config.method
        return None if batch.draws is None else Sampling(batch.draws, m.temperature, m.disallow_correct)

    @property
    def _repeated(self) -> bool:
        return self.config.masking.draw == "with_replacement"

    def scored(self, model: "ElectraModel", batch: "Batch") -> "tuple[Judged, tuple[Tensor, ...]]":
        """For evaluation: what the encoder says of a corrupted batch; the generator's losses and hits (M,), if any.

        Without a head for replaced tokens the logits are zero.
        """
        from albert_ablate.model.generator import Corrupted, corrupt

        sampling = self._sampling(batch)
        if sampling is None:
            return model.judged(self.corrupted(model, batch), batch), ()
        losses, hits, samples = model.generator_scores(batch, sampling)
        corrupted = Corrupted(*corrupt(batch, samples, self._repeated), None, None)
        return model.judged(corrupted, batch), (losses, hits)

    def terms(self, model: "ElectraModel", batch: "Batch") -> tuple[Term, ...]:
        """``generator`` over masked positions if it is a network, the encoder's token loss, and ``sentence``."""
        corrupted = self.corrupted(model, batch)
        terms = [*self._generator_term(corrupted)]
        states = model.encoder(corrupted.input_ids, batch.type_ids, batch.mask)  # (B, T, H)
        terms.append(self._token_term(model, batch, corrupted, states))
        if self._sentences:
            logits = model.sentence_logits(states)
            terms.append(sentence_term(logits, batch.labels, self.config.method.sentence_weight))
        return tuple(terms)

    def _generator_term(self, corrupted: "Corrupted") -> tuple[Term, ...]:
        if corrupted.loss_sum is None:
            return ()
        return (Term("generator", corrupted.loss_sum, "masked", corrupted.hits, epsilon=EPSILON),)

    def _token_term(self, model: "ElectraModel", batch: "Batch", corrupted: "Corrupted", states: "Tensor") -> Term:
        raise NotImplementedError

    def _head_parameters(self) -> dict[str, int]:
        raise NotImplementedError

    def _head_flops(self, length: int) -> float:
        raise NotImplementedError

    def shown(self, line: Mapping[str, float]) -> str:
        """Loss of the encoder's token task and of the generator, accuracy of the sentence task."""
        name = self.token_term
        text = f"{name.replace('_', ' ')} {line[f'{name}_loss']:.3f} nats, {line[f'{name}_accuracy']:.1%}"
        if "generator_loss" in line:
            text += f" · generator {line['generator_loss']:.3f} nats"
        return f"{text} · sentence {line['sentence_accuracy']:.1%}" if "sentence_accuracy" in line else text

    #: Name of the encoder's token loss in log lines.
    token_term: ClassVar[str]


class Electra(Corrupting):
    """Replaced-token detection over all real tokens, [CLS] and [SEP] included, as in the released code."""

    head: ClassVar["Head"] = "replaced"
    token_term = "replaced"

    def _token_term(self, model: "ElectraModel", batch: "Batch", corrupted: "Corrupted", states: "Tensor") -> Term:
        from torch.nn import functional as F

        logits = model.replaced_logits(states)  # (B, T)
        labels = corrupted.replaced
        losses = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")  # (B, T)
        hits = ((logits.detach() > 0) == labels) & batch.mask
        return self._summed(batch, losses, hits)

    def _summed(self, batch: "Batch", losses: "Tensor", hits: "Tensor") -> Term:
        loss = (losses * batch.mask).sum()
        weight = self.config.method.discriminator_weight
        return Term(self.token_term, loss, "tokens", hits.sum(), weight=weight, epsilon=EPSILON)

    def _head_parameters(self) -> dict[str, int]:
        from albert_ablate.model.heads import ReplacedTokenHead

        return {"replaced_head": ReplacedTokenHead.count(self.config.architecture())}

    def _head_flops(self, length: int) -> float:
        from albert_ablate.model.heads import ReplacedTokenHead

        return ReplacedTokenHead.flops(self.config.architecture(), length)
