"""The relatives of ELECTRA in its own ablations (Clark et al., 2020, sections 3.2 and 3.4, Table 5 and Figure 3)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from albert_ablate.axes import METHOD, MethodName
from albert_ablate.methods.electra import EPSILON, Corrupting, Electra
from albert_ablate.methods.method import Term
from albert_ablate.methods.parents import Parent, as_word

if TYPE_CHECKING:  # they load torch
    from torch import Tensor

    from albert_ablate.data.batches import Batch
    from albert_ablate.model.electra import ElectraModel, Head
    from albert_ablate.model.generator import Corrupted

#: The run that trains the generator of two-stage ELECTRA.
GENERATOR = "generator"


class ElectraAtMasked(Electra):
    """ELECTRA 15%: the encoder's loss at the masked positions only, as a mean over them.

    The paper states no normalisation of this loss.
    """

    def _summed(self, batch: "Batch", losses: "Tensor", hits: "Tensor") -> Term:
        real = batch.targets >= 0  # filler positions on a GPU have no target
        loss = (losses.flatten()[batch.positions] * real).sum()
        right = (hits.flatten()[batch.positions] & real).sum()
        weight = self.config.method.discriminator_weight
        return Term(self.token_term, loss, "masked", right, weight=weight, epsilon=EPSILON)


class ReplaceMLM(Corrupting):
    """Masked LM whose encoder reads samples instead of [MASK] and predicts the originals at masked positions.

    The generator is trained beside it at equal weight; the paper does not state the weights.
    """

    head: ClassVar["Head"] = "masked"
    token_term = "replace_mlm"

    def _token_term(self, model: "ElectraModel", batch: "Batch", corrupted: "Corrupted", states: "Tensor") -> Term:
        masked = states.flatten(0, 1).index_select(0, batch.positions)  # (M, H)
        table = model.encoder.embedding.word.weight
        loss, hits = model.mlm_head.loss(masked, table, batch.targets, compiled=model.encoder.compiling)
        return Term(self.token_term, loss, "masked", hits, epsilon=EPSILON)

    def _head_parameters(self) -> dict[str, int]:
        return {"mlm_head": self.config.architecture().parameters().heads["mlm_head"]}

    def _head_flops(self, length: int) -> float:
        return self.config.architecture().token_head_flops(self.masked)


class AllTokensMLM(ReplaceMLM):
    """Replace MLM that predicts the original of every token; a gate decides whether the input is copied."""

    head: ClassVar["Head"] = "all"
    token_term = "all_tokens_mlm"

    def _token_term(self, model: "ElectraModel", batch: "Batch", corrupted: "Corrupted", states: "Tensor") -> Term:
        inputs, targets = corrupted.input_ids.flatten(), corrupted.original.flatten()
        loss, hits = model.all_tokens_loss(states.flatten(0, 1), inputs, targets, batch.mask.flatten())
        return Term(self.token_term, loss, "tokens", hits, epsilon=EPSILON)

    def _head_parameters(self) -> dict[str, int]:
        from albert_ablate.model.heads import CopyGate

        return super()._head_parameters() | {"copy_gate": CopyGate.count(self.config.architecture())}

    def _head_flops(self, length: int) -> float:
        shape = self.config.architecture()
        return shape.token_head_flops(length) + 2 * length * shape.hidden_size


class TwoStage(Electra):
    """The generator is a finished masked-LM run of the same size and budget; the encoder begins with its weights.

    It stays as it is: it samples without dropout, and nothing of it is shared.
    """

    def parents(self) -> tuple[Parent, ...]:
        """The generator: masked LM with ELECTRA's fill. A warm start belongs to that run."""
        c = self.config
        settings = {path.partition(".")[2]: value for path, value in METHOD.beside.items()}
        method = replace(c.method, **settings, name=MethodName.MLM)
        masking = replace(c.masking, fill="electra" if c.masking.fill == "auto" else c.masking.fill)
        changed = {"method": str(MethodName.MLM), "masking.fill": masking.fill}
        changed |= {f"method.{key}": as_word(value) for key, value in settings.items()}
        return (Parent(GENERATOR, replace(c, method=method, masking=masking), changed),)

    def build(self, parents: Mapping[str, Path]) -> "ElectraModel":
        """The model; encoder and generator have the weights of the finished run if there is one."""
        from safetensors.torch import load_file

        model = super().build(parents)
        assert model.generator is not None
        if GENERATOR in parents:
            trained = load_file(parents[GENERATOR] / "model.safetensors")
            for network in (model, model.generator):  # the encoder with its pooler and sentence head, the generator
                names = network.state_dict().keys() & trained.keys()
                network.load_state_dict({name: trained[name] for name in names}, strict=False)
        model.generator.requires_grad_(False)
        return model

    def corrupted(self, model: "ElectraModel", batch: "Batch") -> "Corrupted":
        """The batch with samples of the frozen generator."""
        import torch

        assert model.generator is not None
        model.generator.eval()
        with torch.no_grad():
            return super().corrupted(model, batch)

    def flops(self) -> float:
        """As ELECTRA's, with a single forward pass of the generator; its own training is another run's."""
        generator = self.generator
        assert generator is not None  # the axis refuses others
        forward = generator.forward_flops(self.config.pairs.max_length, self.masked) - generator.pooler_flops()
        return super().flops() - 2 * forward

    def lookup_flops(self) -> float:
        """Three passes of the encoder and one of the generator, instead of three of each."""
        return super().lookup_flops() * 4 / 6
