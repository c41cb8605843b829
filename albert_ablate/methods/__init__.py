"""The methods of pretraining. ``METHODS`` is the table that ``method=`` chooses from."""

from albert_ablate.axes.method import MethodName
from albert_ablate.config.schema import RunConfig
from albert_ablate.methods.causal import CausalLM
from albert_ablate.methods.continued import CONTINUED
from albert_ablate.methods.distilbert import DistilBert
from albert_ablate.methods.electra import Electra
from albert_ablate.methods.electra_variants import AllTokensMLM, ElectraAtMasked, ReplaceMLM, TwoStage
from albert_ablate.methods.method import Measure, Method, Term
from albert_ablate.methods.mlm import MaskedLM
from albert_ablate.methods.mobilebert import MobileBert
from albert_ablate.methods.parents import WARM_START, Parent
from albert_ablate.methods.tinybert import TinyBert

METHODS: dict[MethodName, type[Method]] = {
    MethodName.MLM: MaskedLM,
    MethodName.ELECTRA: Electra,
    MethodName.ELECTRA_15: ElectraAtMasked,
    MethodName.REPLACE_MLM: ReplaceMLM,
    MethodName.ALL_TOKENS_MLM: AllTokensMLM,
    MethodName.TWO_STAGE: TwoStage,
    MethodName.DISTILBERT: DistilBert,
    MethodName.TINYBERT: TinyBert,
    MethodName.CAUSAL: CausalLM,
    MethodName.MOBILEBERT: MobileBert,
}


def method_of(config: RunConfig) -> Method:
    """The method of a configuration."""
    return METHODS[config.method.name](config)


__all__ = ["CONTINUED", "METHODS", "WARM_START", "Measure", "Method", "Parent", "Term", "method_of"]
