"""What a training step optimises; ``methods/`` holds a file for each value."""

from collections.abc import Mapping
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, Protocol

from albert_ablate.axes.axis import Axis, Settings, plain
from albert_ablate.axes.distillation import (
    DISTILBERT,
    MOBILEBERT,
    TEACHER,
    TINYBERT,
    Student,
    distillation_problems,
    transfer_problems,
)


class MethodName(StrEnum):
    """A key of ``methods.METHODS``."""

    MLM = "mlm"
    ELECTRA = "electra"
    ELECTRA_15 = "electra_15"
    REPLACE_MLM = "replace_mlm"
    ALL_TOKENS_MLM = "all_tokens_mlm"
    TWO_STAGE = "electra_two_stage"
    DISTILBERT = "distilbert"
    TINYBERT = "tinybert"
    CAUSAL = "causal"
    MOBILEBERT = "mobilebert"

    @property
    def corrupts(self) -> bool:
        """Whether the encoder reads text in which a generator has replaced tokens."""
        return self.discriminates or self in (MethodName.REPLACE_MLM, MethodName.ALL_TOKENS_MLM)

    @property
    def discriminates(self) -> bool:
        """Whether the encoder learns which tokens were replaced."""
        return self in (MethodName.ELECTRA, MethodName.ELECTRA_15, MethodName.TWO_STAGE)

    @property
    def distils(self) -> bool:
        """Whether the encoder learns from a teacher, a finished run."""
        return self in _STUDENT_SETTINGS

    @property
    def reads_masks(self) -> bool:
        """Whether the encoder predicts the pieces at masks."""
        return self in (MethodName.MLM, MethodName.DISTILBERT, MethodName.MOBILEBERT)

    @property
    def transfers(self) -> bool:
        """Whether layers learn from those of the teacher before the last states do, in stages."""
        return self is MethodName.MOBILEBERT

    @property
    def predicts_next(self) -> bool:
        """Whether the encoder predicts the next piece, so that a position sees only itself and those before it."""
        return self is MethodName.CAUSAL

    @property
    def needs_another_run(self) -> bool:
        """Whether the encoder learns from, or begins with, a network that is trained first."""
        return self.distils or self.needs_equal_generator

    @property
    def needs_equal_generator(self) -> bool:
        """Whether the encoder begins with the generator's weights, so that both networks have one size."""
        return self is MethodName.TWO_STAGE


#: The group's settings of the generator, with their defaults.
_GENERATOR: Mapping[str, Any] = {
    "generator": "learned", "generator_width": 0.25, "generator_depth": 1.0, "tie": "embeddings",
    "temperature": 1.0, "disallow_correct": False,
}  # fmt: skip
#: Other settings with their defaults.
_WEIGHTS: Mapping[str, Any] = {"discriminator_weight": 50.0, "sentence_weight": 1.0, "initialisation": "equal"}
#: Settings of the model that any method may have, with their defaults.
_MODEL: Mapping[str, Any] = {"token_types": True, "pooler": "always"}
#: The settings of each method that distils, with their defaults.
_STUDENT_SETTINGS: Mapping[MethodName, Mapping[str, Any]] = {
    MethodName.DISTILBERT: DISTILBERT, MethodName.TINYBERT: TINYBERT, MethodName.MOBILEBERT: MOBILEBERT,
}  # fmt: skip
#: Settings of causal LM, with their defaults.
_CAUSAL: Mapping[str, Any] = {"blocks": "packed"}
_DEFAULTS: Mapping[str, Any] = {
    **_MODEL,
    **_GENERATOR,
    **_WEIGHTS,
    **TEACHER,
    **DISTILBERT,
    **TINYBERT,
    **_CAUSAL,
    **MOBILEBERT,
}


class _Method(Student, Protocol):
    """The group ``method``."""

    @property
    def name(self) -> MethodName:
        """What a training step optimises."""

    @property
    def generator(self) -> str:
        """Where replaced tokens come from."""

    @property
    def generator_width(self) -> float:
        """Width of the generator as a fraction of the encoder's."""

    @property
    def generator_depth(self) -> float:
        """Layers of the generator as a fraction of the encoder's."""

    @property
    def tie(self) -> str:
        """What both networks share."""

    @property
    def transfer(self) -> str:
        """How a student learns from its teacher's layers."""

    @property
    def pooler(self) -> str:
        """Whether the model has a pooler and a sentence head that no loss trains."""


def _contradictions(method: _Method, c: Settings) -> list[str]:
    group, name = vars(method), method.name
    problems = [
        f"method.{key}={plain(group[key])}: no effect with {_reason(key, method)}. "
        f"Leave it at {plain(_DEFAULTS[key])}, or use {_user_of(key)}."
        for key in _unused(method)
        if group[key] != _DEFAULTS[key]
    ]
    if name.corrupts and method.pooler != "always":
        problems.append(f"method.pooler={method.pooler}: no effect with method={name}. Leave it at always.")
    if name.needs_equal_generator and method.generator != "learned":
        problems.append(f"method.generator={method.generator}: method={name} trains its generator first. Use learned.")
    if name.corrupts and method.generator == "learned":
        problems += _sizes(method, c)
    if name.transfers:
        problems += transfer_problems(method, c)
    elif name.distils:
        weights = tuple(key for key in _STUDENT_SETTINGS[name] if key.endswith("_weight"))
        problems += distillation_problems(method, weights, c)
    return problems


def _unused(method: _Method) -> list[str]:
    """The settings of the group that the method does not read."""
    name, unused = method.name, list[str]()
    if not name.corrupts:
        unused = [*_GENERATOR, "initialisation"]
    elif method.generator != "learned":
        unused = [key for key in _GENERATOR if key != "generator"]
    if not (name.corrupts or name.distils):
        unused.append("sentence_weight")
    if not name.discriminates:
        unused.append("discriminator_weight")
    if not name.predicts_next:
        unused += _CAUSAL
    if name.transfers:
        unused += _unused_stages(method)
    if not name.distils:
        unused += [key for key in TEACHER if key != "teacher_run" or method.teacher is None]
    return unused + [key for other, keys in _STUDENT_SETTINGS.items() if other is not name for key in keys]


def _unused_stages(method: _Method) -> list[str]:
    """The settings of a student that learns layers in stages and does not read them."""
    unused, strategy = ["teacher_depth", "teacher_width"], method.transfer
    if method.teacher is not None:
        unused.append("teacher_inside")
    if strategy != "progressive":
        unused.append("stage_rates")
    if strategy not in ("progressive", "joint"):
        unused += ["transfer_share", "stage_ramp"]
    if strategy == "none":
        unused += [key for key in MOBILEBERT if key.endswith("_weight") or key == "feature_form"]
    return unused


def unread(values: Mapping[str, Any]) -> frozenset[str]:
    """Full names of the group's settings that a run with the flat settings ``values`` does not read."""
    name = MethodName(values["method.name"])
    group = {key: values.get(f"method.{key}", default) for key, default in _DEFAULTS.items()}
    return frozenset(f"method.{key}" for key in _unused(SimpleNamespace(name=name, **group)))


def _reason(key: str, method: _Method) -> str:
    """Why a method does not read the setting ``key``."""
    if key in _GENERATOR and method.name.corrupts:
        return f"method.generator={method.generator}"
    if key == "teacher_inside" and method.name.transfers:
        return f"method.teacher={method.teacher}"
    if key in MOBILEBERT and method.name.transfers:
        return f"method.transfer={method.transfer}"
    return f"method={method.name}"


def _user_of(key: str) -> str:
    """A method that reads the setting ``key``."""
    if key in _CAUSAL:
        return f"method={MethodName.CAUSAL}"
    if key in MOBILEBERT:
        return "method=mobilebert with method.transfer=progressive"
    students = [name for name, keys in _STUDENT_SETTINGS.items() if key in keys or key in TEACHER]
    return f"method={students[0]}" if students else "method=electra with a learned generator"


def _sizes(method: _Method, c: Settings) -> list[str]:
    """Problems of the generator's size."""
    width, depth, hidden = method.generator_width, method.generator_depth, c.attention_width
    head = max(1, hidden // c.model.heads)
    generator = round(hidden * width)
    heads = max(1, generator // head)
    equal = width == 1 and depth == 1
    if method.name.needs_equal_generator and not equal:
        return [
            f"method.generator_width={width:g}, method.generator_depth={depth:g}: with method={method.name} the "
            "encoder begins with the generator's weights, so both have one size. Set both to 1."
        ]
    if method.name.needs_equal_generator and method.tie != "none":
        return [f"method.tie={method.tie}: with method={method.name} the generator is frozen. Use method.tie=none."]
    if method.tie == "all" and not equal and (width != 1 or not c.share.all_layers_equal):
        return [
            f"method.tie=all with method.generator_width={width:g} and method.generator_depth={depth:g}: networks of "
            "different sizes cannot share their layers. Set both to 1; with share=all the depth may differ."
        ]
    layers = max(1, round(c.model.layers * depth))
    if layers % c.share.inner:
        return [
            f"method.generator_depth={depth:g}: {layers} layers of the generator are no whole stacks of "
            f"share.inner={c.share.inner} layers. Set share.inner=1, or a depth that gives a multiple of it."
        ]
    if generator < 1 or generator % heads:
        fitting = sorted({round(hidden * f) for f in (1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 1)} - {0})
        whole = f"model.hidden={hidden}" if hidden == c.model.hidden else f"the {hidden} inside a layer"
        good = [w for w in fitting if w % max(1, w // head) == 0]
        return [
            f"method.generator_width={width:g}: {generator} of {whole} does not divide by {heads} heads. "
            f"Widths that fit, as fractions: {', '.join(f'{w / hidden:.4g}' for w in good)}."
        ]
    return []


METHOD = Axis(
    "method", "name", "what a training step optimises",
    {
        MethodName.MLM: "masked LM", MethodName.ELECTRA: "ELECTRA", MethodName.ELECTRA_15: "ELECTRA 15%",
        MethodName.REPLACE_MLM: "replace MLM", MethodName.ALL_TOKENS_MLM: "all-tokens MLM",
        MethodName.TWO_STAGE: "two-stage ELECTRA",
        MethodName.DISTILBERT: "DistilBERT", MethodName.TINYBERT: "TinyBERT",
        MethodName.CAUSAL: "causal LM", MethodName.MOBILEBERT: "MobileBERT's transfer",
    },
    before=MethodName.MLM,
    beside={f"method.{key}": value for key, value in _DEFAULTS.items()},
    contradictions=_contradictions,
)  # fmt: skip
