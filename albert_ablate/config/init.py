"""The settings of the group ``init``: the finished run that a run continues."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

#: The group's settings, with their values in runs that continue none.
NOTHING: Mapping[str, Any] = {"run": None, "run_id": None, "tokenizer": "parent", "weights": None}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class InitConfig:
    """The parent, a finished run, and what a run takes of it beside the settings of its model."""

    run: Annotated[str, Field(min_length=1)] | None  # its folder
    run_id: str | None  # its identity
    tokenizer: Literal["parent", "own"]
    weights: Literal["parent", "random"] | None  # None without a parent

    @property
    def continues(self) -> bool:
        """Whether training starts with the weights of the parent."""
        return self.run is not None and self.weights != "random"


def continues(values: Mapping[str, Any]) -> bool:
    """``InitConfig.continues`` of the group as plain values, which older runs lack."""
    return values.get("run_id") is not None and values.get("weights") != "random"


def init_contradictions(init: InitConfig, starts: Mapping[str, object]) -> list[str]:
    """Problems of the group; ``starts``: settings of another start -> value, those that are set."""
    if init.run is None:
        named = {"run_id": init.run_id, "tokenizer": init.tokenizer, "weights": init.weights}
        return [
            f"init.{key}={value}: no effect without a run to continue. Give init=RUN."
            for key, value in named.items()
            if value != NOTHING[key]
        ]
    return [
        f"{name}={value} with init.run={init.run}: a run starts from one other run. Leave one of them empty."
        for name, value in starts.items()
        if init.continues
    ]
