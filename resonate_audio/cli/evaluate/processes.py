"""What the commands of `resonate eval` share: where the work is done, and how names are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from resonate_audio.cli.console import say
from resonate_audio.cli.data.encode import ray_config

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from resonate_audio.evaluation.clips.bulk import Bulk

ToolT = TypeVar("ToolT")
LISTED = 10
"""Names that are told before the rest is only counted."""


def name_some(what: str, names: Sequence[str]) -> None:
    """Name the first few on stderr, and count the rest."""
    for text in names[:LISTED]:
        say(f"{what}: {text}")
    if len(names) > LISTED:
        say(f"{what}: {len(names) - LISTED} more")


def bulk_of(
    open_tool: Callable[..., ToolT],
    address: str | None,
    workers: int | None,
    threads: int | None,
    device: str | None,
) -> Bulk[ToolT] | None:
    """What the options say of many processes.

    Args:
        open_tool: takes ``device``; each process calls it.
        address: of Ray.
        workers: processes.
        threads: of each.
        device: as the option says it.

    Raises:
        InputError: workers are asked for without Ray.
    """
    if address is None:
        ray_config(address, workers)
        return None
    import torch

    from resonate_audio.evaluation.clips.bulk import Bulk
    from resonate_audio.pipeline.device import choose_device

    num_threads = threads or torch.get_num_threads()
    if threads is None and num_threads > 1:
        say(
            f"note: each process computes with {num_threads} threads, as this machine does without "
            "Ray, so that results are the same bits; --threads 1 suits many processes better"
        )
    kind = choose_device(device).type
    ray = ray_config(address, workers, gpus=1.0 if kind == "cuda" else 0.0)
    assert ray is not None
    return Bulk(ray, partial(open_tool, device=kind), num_threads)


def use_threads(num_threads: int | None) -> AbstractContextManager[None]:
    """So many CPU threads; None: as many as there are."""
    if num_threads is None:
        return nullcontext()
    from resonate_audio.core.threads import cpu_threads

    return cpu_threads(num_threads)
