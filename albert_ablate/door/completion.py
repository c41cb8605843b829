"""Completions of a setting, from Hydra (part of the door)."""

from collections.abc import Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.plugins.completion_plugin import DefaultCompletionPlugin

from albert_ablate.door.words import REFUSALS, initialised


def settings(given: Sequence[str], word: str) -> list[str]:
    """Groups, options and settings that complete ``word``, next to the settings ``given``.

    Empty if Hydra refuses the given settings or knows no completion.
    """
    with initialised():
        plugin = DefaultCompletionPlugin(GlobalHydra.instance().config_loader())
        try:
            completions = plugin._query("config", " ".join([*given, word]))
        except REFUSALS:
            return []
    # Hydra omits the = of a group that contains groups, such as task. Its own group is no setting of a run.
    return [text if "=" in text or text[-1] in "./" else f"{text}=" for text in completions if text != "hydra"]
