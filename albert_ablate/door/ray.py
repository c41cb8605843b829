"""The connection to a Ray cluster (part of the door)."""

import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

from albert_ablate.errors import ConfigError
from albert_ablate.shipped import install_command

#: Seconds in which a cluster has to accept a connection; Ray itself tries for minutes.
_PATIENCE = 10.0


def connect(settings: Mapping[str, Any]) -> None:
    """Connect to Ray, or start it on this machine, as ``settings`` (``hydra.launcher``) say. Raises ConfigError.

    This comes before the sweep handles stop signals, whose handlers Ray replaces.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"hydra/launcher=ray: it is not installed. Run `{install_command('ray')}`.") from error
    address = str(settings["address"])
    place = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    try:
        host, _, port = place.removeprefix("ray://").rpartition(":")
        if host and port.isdigit():
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except OSError as error:  # Ray's error for a cluster that is not there is one, too
        raise ConfigError(
            f"hydra.launcher.address={address}: no Ray cluster answers at {place or 'this node'}. Start one with `ray "
            "start --head`, and its other nodes with `ray start --address=HEAD:6379`; hydra.launcher.address=local "
            "starts a Ray of this machine alone."
        ) from error
