"""What can be ablated: one axis, with its names, labels and contradictions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Shape(Protocol):
    """The settings of the group ``model`` that an axis may check its own settings against."""

    @property
    def name(self) -> str:
        """The name of the shape, such as ``nano``."""

    @property
    def hidden(self) -> int:
        """Width H."""

    @property
    def layers(self) -> int:
        """Number of layers."""

    @property
    def heads(self) -> int:
        """Number of attention heads."""

    @property
    def projection(self) -> str:
        """Where the embedding is projected: ``auto`` or ``always``."""


class Sharing(Protocol):
    """The settings of the group ``share`` that an axis may check its own settings against."""

    @property
    def strategy(self) -> str:
        """The sharing strategy."""

    @property
    def inner(self) -> int:
        """Number of layers in the stack that a group repeats."""

    @property
    def all_layers_equal(self) -> bool:
        """Whether every layer is the same block."""


class Settings(Protocol):
    """The settings of a run that an axis may check its own settings against.

    ``config.RunConfig`` has them. It imports the axes, so the axes cannot import it.
    """

    @property
    def model(self) -> Shape:
        """The shape of the encoder."""

    @property
    def share(self) -> Sharing:
        """What layers share."""

    @property
    def attention_width(self) -> int:
        """The width of all heads together."""


def _none(group: Any, settings: Settings) -> list[str]:
    return []


@dataclass(frozen=True)
class Axis:
    """One axis. Names, labels, columns, colours and the identity of a run follow from it."""

    group: str  # the folder in conf/, the key on the command line, the field of RunConfig
    setting: str  # the field of the group that holds the axis's value
    title: str  # description of its column
    labels: Mapping[str, str] = field(default_factory=dict)  # value -> label, in the order of figures; empty: numbers
    label: str = "{}"  # template of the label of a value that ``labels`` lacks
    slug: str = "{}"  # template of a value in the name of a run folder
    column: str = ""  # column in the table of runs; the group's name if empty
    before: str | None = None  # value of runs older than the axis; left out of identities and names
    beside: Mapping[str, Any] = field(default_factory=dict)  # the group's other settings: full name -> default
    contradictions: Callable[[Any, Settings], list[str]] = _none  # (the group, the run) -> problems, a sentence each

    @property
    def path(self) -> str:
        """Full name of the setting, such as ``share.strategy``."""
        return f"{self.group}.{self.setting}"

    @property
    def name(self) -> str:
        """Name of the axis's column in the table of runs."""
        return self.column or self.group

    def of(self, config: Mapping[str, Any]) -> Any:
        """The value in nested plain settings; ``before`` for older runs, whose settings lack the axis."""
        group = config.get(self.group)
        chosen = group.get(self.setting) if isinstance(group, Mapping) else None
        return self.before if chosen is None else chosen

    def value(self, config: Settings) -> Any:
        """The value in typed settings, as plain text or number."""
        chosen = getattr(getattr(config, self.group), self.setting)
        return getattr(chosen, "value", chosen)

    def problems(self, config: Settings) -> list[str]:
        """One sentence for each setting that contradicts the value."""
        return self.contradictions(getattr(config, self.group), config)

    def label_of(self, value: Any) -> str:
        """The label of a value: ``all shared``, or ``E=32``."""
        return self.labels.get(str(value)) or self.label.format(value)

    def shown(self, value: Any) -> bool:
        """Whether names of runs show the value; those of runs older than the axis do not."""
        return self.before is None or str(value) != self.before

    def rank(self, value: Any) -> float:
        """Sort key of the value in figures: its index in ``labels``, or the number itself."""
        if not self.labels:
            return float(value)
        order = list(self.labels)
        return order.index(str(value)) if str(value) in order else len(order)


def plain(value: Any) -> str:
    """A setting's value in a message: ``null``, ``true``, ``0.5`` or ``2``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
