"""How much memory this machine has, and networks that it cannot hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from resonate_audio.core.errors import ConfigError
from resonate_audio.core.files import open_regular

CGROUP = Path("/sys/fs/cgroup/memory.max")
"""What a container may use; ``max`` where it has no limit."""
IN_TRAINING = 5
"""Weights, gradients, two moments and the average."""


def machine_bytes() -> int:
    """Memory of this machine, or of the container that it is."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open_regular(CGROUP) as file:
            limit = file.read().strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole


def refuse_too_large(make: Callable[[], nn.Module], name: str, copies: int = 1) -> None:
    """Refuse a network before it takes all memory: its shape is made, without its numbers.

    Args:
        make: makes it.
        name: what it is, for the error.
        copies: how often its weights will be there.

    Raises:
        ConfigError: it does not fit into this machine; says what it needs.
    """
    if torch.get_default_device().type == "meta":  # only its shape is wanted
        return
    with torch.device("meta"):
        shape = make()
    tensors = [*shape.parameters(), *shape.buffers()]
    needed = copies * sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    there = machine_bytes()
    if needed > there:
        raise ConfigError(
            f"{name}: would need {in_words(needed)}; this machine has {in_words(there)}"
        )


def in_words(num_bytes: int) -> str:
    """A size that people can read: ``4 TB``, ``23 GB``."""
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB")):
        if num_bytes >= 10**power:
            return f"{num_bytes / 10**power:,.3g} {unit}"
    return f"{num_bytes:,} bytes"
