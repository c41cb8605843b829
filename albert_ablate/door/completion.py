"""How a setting may go on, as Hydra knows it (part of the door)."""

from collections.abc import Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.plugins.completion_plugin import DefaultCompletionPlugin

from albert_ablate.door.words import REFUSALS, initialised


def settings(given: Sequence[str], word: str) -> list[str]:
    """Groups, options and names of settings that ``word`` may become beside the settings ``given``.

    Nothing where Hydra refuses what is given, or where nothing is known of the word.
    """
    with initialised():
        plugin = DefaultCompletionPlugin(GlobalHydra.instance().config_loader())
        try:
            found = plugin._query("config", " ".join([*given, word]))
        except REFUSALS:
            return []
    # A group with groups inside, such as task, comes without its sign; hydra itself is none of ours.
    return [one if "=" in one or one[-1] in "./" else f"{one}=" for one in found if one != "hydra"]
