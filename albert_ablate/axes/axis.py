"""What can be ablated: an axis and all that the rest of the house has to know about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Shape(Protocol):
    """The settings of the group ``model`` that an axis may hold its own against."""

    @property
    def name(self) -> str:
        """The name of the shape, such as ``nano``."""

    @property
    def hidden(self) -> int:
        """Width H."""

    @property
    def layers(self) -> int:
        """Number of layers."""


class Settings(Protocol):
    """The settings of a run that an axis may hold its own against.

    ``config.RunConfig`` has them. It is built on the axes, so they cannot import it.
    """

    @property
    def model(self) -> Shape:
        """The shape of the encoder."""


def _none(group: Any, settings: Settings) -> list[str]:
    return []


@dataclass(frozen=True)
class Axis:
    """One axis. Names, labels, columns, colours and the identity of a run follow from it."""

    group: str  # the folder in conf/, the key on the command line, the field of RunConfig
    setting: str  # the field of the group that is the axis
    title: str  # what it is, for a column's description
    labels: Mapping[str, str] = field(default_factory=dict)  # value -> words, in the order of figures; none: a number
    label: str = "{}"  # a value in words, where it has none of its own
    slug: str = "{}"  # a value in the name of a run folder
    column: str = ""  # of the table of runs; the group's name where it is empty
    before: str | None = None  # the value of runs from before there was the axis: their identities and names keep
    beside: Mapping[str, Any] = field(default_factory=dict)  # its other settings, full name -> value if unsaid
    contradictions: Callable[[Any, Settings], list[str]] = _none  # (its group, the run) -> what its value forbids

    @property
    def path(self) -> str:
        """The setting by its full name, such as ``share.strategy``."""
        return f"{self.group}.{self.setting}"

    @property
    def name(self) -> str:
        """Of its column in the table of runs."""
        return self.column or self.group

    def of(self, config: Mapping[str, Any]) -> Any:
        """The value in nested plain settings; ``before`` where they have none, as older runs."""
        group = config.get(self.group)
        found = group.get(self.setting) if isinstance(group, Mapping) else None
        return self.before if found is None else found

    def value(self, config: Settings) -> Any:
        """The value in typed settings, as plain text or number."""
        found = getattr(getattr(config, self.group), self.setting)
        return getattr(found, "value", found)

    def problems(self, config: Settings) -> list[str]:
        """A sentence for each setting that the value forbids."""
        return self.contradictions(getattr(config, self.group), config)

    def words(self, value: Any) -> str:
        """``all shared``, or ``E=32``."""
        return self.labels.get(str(value)) or self.label.format(value)

    def shown(self, value: Any) -> bool:
        """Whether names say the value: those of runs from before the axis do not."""
        return self.before is None or str(value) != self.before

    def rank(self, value: Any) -> float:
        """The value's place in the order of figures; of a number itself."""
        if not self.labels:
            return float(value)
        order = list(self.labels)
        return order.index(str(value)) if str(value) in order else len(order)
