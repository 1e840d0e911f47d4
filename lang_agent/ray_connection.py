"""The connection of this process to Ray: to a cluster, or to one that is started on this machine.

Ray is imported when it is asked for and sends nothing home.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lang_agent.errors import LangAgentError
from lang_agent.processes import cores

LOCAL = "local"
"""The address that starts Ray on this machine, until the context ends."""
REACH_SECONDS = 5.0
STORE_BYTES = 128 * 2**20
"""Ray's object store where it is started here: episodes and steps go through it."""


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to the Ray cluster at ``address``, as a context; where this process has one
    already, that is used and left as it is.

    Args:
        address: ``local`` (Ray is started here and ended with the context), ``auto`` (the cluster
            that this machine is a node of), or the head node's HOST:PORT.

    Raises:
        LangAgentError: Ray is not installed, or the cluster cannot be reached or runs other
            versions of Ray or Python.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # lines go another way (Channel)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise LangAgentError("Ray is an extra: pip install 'lang_agent[ray]'.") from None
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {}
    if address == LOCAL:
        options = {
            "num_cpus": cores(),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
        if sys.platform == "linux":  # or a machine whose name nobody resolves is not found
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    else:
        _refuse_unreachable(address)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
        ray._private.worker._worker_logs_enabled = False  # a death is said here, once
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise LangAgentError(
            f"The Ray cluster at {address!r} cannot be used: {' '.join(str(error).split())}"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _refuse_unreachable(address: str) -> None:
    """Raise :class:`LangAgentError` where nobody listens: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if "://" in address or not host or not port.isdigit():
        raise LangAgentError(
            f"address={address!r} must be local, auto, or HOST:PORT of a Ray cluster's head node."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise LangAgentError(
            f"The Ray cluster at {address!r} cannot be reached "
            f"({getattr(error, 'strerror', None) or error}): start it with "
            f"`ray start --head --port {port}`, or take --address local."
        ) from None
