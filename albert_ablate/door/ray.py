"""The connection to a Ray cluster (part of the door)."""

import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

from albert_ablate.errors import ConfigError

#: Seconds in which a cluster has to accept a connection; Ray itself tries for minutes.
_PATIENCE = 10.0


def connect(settings: Mapping[str, Any]) -> None:
    """Connect to Ray, or start it on this machine, as ``settings`` (``hydra.launcher``) say. Raises ConfigError.

    The plug-in does so too, but later: Ray replaces the handlers of stop signals, which the sweep has installed by
    then, and the plug-in sizes the object store, which a running cluster refuses.
    """
    import ray

    init = dict(settings["ray"]["init"])
    address = init.get("address")
    place = os.environ.get("RAY_ADDRESS", "") if address in (None, "auto") else str(address)
    try:
        host, _, port = place.removeprefix("ray://").rpartition(":")
        if host and port.isdigit():
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        ray.init(logging_level=logging.WARNING, **init)
    except OSError as error:  # Ray's error for a cluster that is not there is one, too
        raise ConfigError(
            f"hydra/launcher=ray_cluster: no Ray cluster answers at {place or 'this node'}. Start one with `ray start "
            "--head`, and its other nodes with `ray start --address=HEAD:6379`; or give hydra/launcher=ray, which "
            "starts a Ray of this machine alone."
        ) from error
