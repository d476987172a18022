"""Several processes that train one model, started by torchrun.

A recipe means the same whatever the number of processes: every batch, rollout and group in it is
that of the whole run, and each process computes its rows. Shares of a loss add up to 1 over all
processes, so gradients are *summed*. Noise belongs to (seed, step, row), so N processes draw what
one would.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from resonate_audio.core.errors import ConfigError, ResonateError, TrainingError
from resonate_audio.core.text import one_line
from resonate_audio.model.flow_transformer import FlowTransformer

Parallel = Literal["ddp", "fsdp"]
BUCKET_BYTES = 32 * 2**20
"""Gradients that are summed by one call: long enough to fill a link, short enough to copy."""
PATIENCE = timedelta(hours=1)
"""How long processes wait for each other, for instance while the first one encodes the data."""
T = TypeVar("T")
TensorT = TypeVar("TensorT", bound=Tensor)


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this one is."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """This is the process that writes files and speaks."""
        return self.rank == 0

    def mine(self, rows: Int[Tensor, " row"]) -> Int[Tensor, " own"]:
        """Every ``world``-th of some rows, so that the takes of a prompt lie in all processes."""
        return rows[self.rank :: self.world]

    def sum(self, values: Float[Tensor, " value"]) -> Float[Tensor, " value"]:
        """Sum over the processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def max(self, values: Float[Tensor, " value"]) -> Float[Tensor, " value"]:
        """Maximum over the processes, in place."""
        if self.world > 1:
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values

    def any(self, flag: bool) -> bool:
        """Whether it is so in one process or more."""
        return bool(self.max(torch.tensor([float(flag)]))[0])

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def join_rows(self, own: Shaped[Tensor, "own ..."]) -> Shaped[Tensor, "row ..."]:
        """Rows of all processes in their order, from those that are `mine`."""
        if self.world == 1:
            return own
        return _interleave(self.gather(own.cpu())).to(own.device)

    def join_at_first(self, own: Shaped[Tensor, "own ..."]) -> Shaped[Tensor, "row ..."]:
        """`join_rows` for the first process alone; the others keep what they have."""
        if self.world == 1:
            return own
        parts: list[Any] | None = [None] * self.world if self.first else None
        dist.gather_object(own.cpu(), parts)
        return own if parts is None else _interleave(parts).to(own.device)

    def wait(self) -> None:
        """Go on when every process is here."""
        if self.world > 1:
            dist.all_reduce(torch.zeros(1))

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the first process through, then the others: they find what it wrote."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def say(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """``say`` in the first process, silence in the others."""
        return say if self.first else lambda text: None


def _interleave(parts: list[Tensor]) -> Tensor:
    joined = parts[0].new_empty((sum(len(part) for part in parts), *parts[0].shape[1:]))
    for rank, part in enumerate(parts):
        joined[rank :: len(parts)] = part
    return joined


ALONE = Ranks()


def current_ranks() -> Ranks:
    """This process among those that `joined_ranks` brought together; alone without it."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return ALONE


@contextmanager
def joined_ranks(device: str = "auto") -> Iterator[Ranks]:
    """Join the processes that torchrun started; nothing happens without it or inside another.

    Raises:
        TrainingError: another process stopped, which says itself why, or torchrun's variables do
            not say who is there.
    """
    if number_of("WORLD_SIZE", 1) == 1 or current_ranks() != ALONE:
        yield current_ranks()
        return
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda:
        torch.cuda.set_device(number_of("LOCAL_RANK", 0))
    # Imported later, as torch does by itself, its functions keep the group that there is then as
    # their default. The group's threads then lived until the interpreter's end, where one that
    # still had a tensor to drop ended 1 of 6 finished runs with SIGABRT (torch 2.13).
    importlib.import_module("torch.distributed.nn.functional")
    store, rank, world = _meeting_place()
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=world)
    try:
        yield current_ranks()
    except (RuntimeError, ResonateError) as error:
        raise _tell_torchrun(error) from error
    finally:
        dist.destroy_process_group()


def number_of(variable: str, usual: int) -> int:
    """A whole number that torchrun left in the environment.

    Raises:
        TrainingError: something else is there.
    """
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise TrainingError(f"{variable}={text[:40]}: expected a whole number, as torchrun sets it")
    return int(text[:9]) if text else usual


def _meeting_place() -> tuple[Any, int, int]:
    """Where torchrun's processes find each other, apart from those of an earlier start.

    torchrun keeps one store over its restarts. Without a prefix of their own, restarted processes
    found the addresses of dead ones in it: 3 of 5 restarts failed with torch 2.13.
    """
    try:
        store, rank, world = next(iter(rendezvous("env://", timeout=PATIENCE)))
    except (ValueError, RuntimeError, OSError) as error:
        raise TrainingError(
            f"the processes cannot find each other ({one_line(str(error), 160)}); start them with "
            "torchrun, or unset WORLD_SIZE for one"
        ) from error
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    prefixed: Any = dist.PrefixStore  # type: ignore[attr-defined]
    return prefixed(f"start {start} of {world}", store), rank, world


def _tell_torchrun(error: Exception) -> Exception:
    """Leave the cause where torchrun looks for it; a broken connection becomes one clear line."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    rank = dist.get_rank()
    if isinstance(error, RuntimeError) and _lost_connection(error):
        error = TrainingError(f"process {rank}: another process stopped; its own message says why")
    elif isinstance(error, ResonateError):
        error = type(error)(f"process {rank}: {error}")
    get_error_handler().record_exception(error)
    return error


def _lost_connection(error: RuntimeError) -> bool:
    text = str(error)
    return isinstance(error, dist.DistError) or "gloo" in text or "Connection" in text


def check_split(rows: int, ranks: Ranks, name: str) -> None:
    """Refuse a batch that the processes cannot share evenly.

    Raises:
        ConfigError: names the setting, both numbers and what would do.
    """
    if rows % ranks.world:
        more = -(-rows // ranks.world) * ranks.world
        raise ConfigError(
            f"{name}: a batch of {rows} rows does not split over {ranks.world} processes; "
            f"make it {more} rows, or start another number of processes"
        )


# --- replicas: every process has all weights ---------------------------------------------------


def copy_from_first(module: nn.Module, ranks: Ranks) -> None:
    """Give every process the weights and buffers of the first."""
    if ranks.world > 1:
        for value in [*module.parameters(), *module.buffers()]:
            dist.broadcast(value.detach(), src=0)


class GradientSum:
    """Sums the gradients of a module over the processes, once an update, while they are computed.

    A bucket is sent as soon as the last backward pass of an update has filled it. Buckets are the
    same in every update and sent in the same order, so a restarted run adds just as the first one
    did. (torch's DistributedDataParallel makes new buckets after its first update, and wants every
    forward pass to go through one method of one wrapper.) Sharded modules sum by themselves.
    """

    def __init__(self, module: nn.Module, ranks: Ranks) -> None:
        self.shards = _sharded_parts(module)
        self.buckets: list[list[nn.Parameter]] = []
        if ranks.world > 1 and not self.shards:
            trained = [value for value in module.parameters() if value.requires_grad]
            self.buckets = split_in_buckets(trained[::-1], BUCKET_BYTES)  # the last are first done
        for number, bucket in enumerate(self.buckets):
            for parameter in bucket:
                when_added: Any = parameter.register_post_accumulate_grad_hook
                when_added(partial(self._done, number))
        self._last_pass = False
        self._missing = [len(bucket) for bucket in self.buckets]
        self._sent: list[tuple[Tensor, dist.Work]] = []

    def on_pass(self, last: bool) -> None:
        """Say whether the next backward pass is the last of its update."""
        self._last_pass = last
        for part in self.shards:
            part.set_requires_gradient_sync(last, recurse=False)

    def finish(self) -> None:
        """Send what is left, wait for the sums and put them into the gradients."""
        while len(self._sent) < len(self.buckets):
            self._send(self.buckets[len(self._sent)])
        for bucket, (flat, work) in zip(self.buckets, self._sent, strict=True):
            work.wait()
            parts = torch.split(flat, [parameter.numel() for parameter in bucket])
            for parameter, part in zip(bucket, parts, strict=True):
                parameter.grad = part.view_as(parameter)
        self._missing = [len(bucket) for bucket in self.buckets]
        self._sent, self._last_pass = [], False

    def _done(self, number: int, parameter: nn.Parameter) -> None:
        if not self._last_pass:
            return
        self._missing[number] -= 1
        while len(self._sent) < len(self.buckets) and not self._missing[len(self._sent)]:
            self._send(self.buckets[len(self._sent)])

    def _send(self, bucket: list[nn.Parameter]) -> None:
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self._sent.append((flat, dist.all_reduce(flat, async_op=True)))


def split_in_buckets(tensors: list[TensorT], size: int) -> list[list[TensorT]]:
    """Neighbouring tensors together, at most ``size`` bytes a bucket where they are smaller."""
    buckets: list[list[TensorT]] = []
    room = 0
    for tensor in tensors:
        room -= tensor.nbytes
        if room < 0 or not buckets:
            buckets.append([])
            room = size - tensor.nbytes
        buckets[-1].append(tensor)
    return buckets


# --- shards: every process has its part of each weight -----------------------------------------


def shard(module: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Split weights, gradients and moments over the processes, block by block, in place.

    [FSDP, arXiv:2304.11277, in the per-parameter form of torch's fully_shard]

    Raises:
        ConfigError: it is not a flow transformer.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    if not isinstance(module, FlowTransformer):
        raise ConfigError("run.parallel fsdp: only the flow transformer can; use ddp")
    # It warns of in-place changes to what a block returned, which nobody makes.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    mesh = init_device_mesh(device.type, (ranks.world,))
    for block in [*module.joint_blocks, *module.single_blocks]:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(module, "condition")
    for part in _sharded_parts(module):
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo cannot scale while it sums


def is_sharded(value: Tensor) -> bool:
    """Whether this process has only its part of a tensor."""
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


@contextmanager
def unsharded(module: nn.Module) -> Iterator[None]:
    """Have all weights in every process for a while: forward passes need no other process."""
    parts = _sharded_parts(module)
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """State dict of a module that is whole or `unsharded`, without asking other processes."""
    if not _sharded_parts(module):
        return module.state_dict()
    return {n: value.detach() for n, value in [*module.named_parameters(), *module.named_buffers()]}


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with every shard; all processes call it together, in the same order."""
    return {
        name: value.full_tensor() if is_sharded(value) else value  # type: ignore[attr-defined]
        for name, value in tensors.items()
    }


def like(value: Tensor, other: Tensor) -> Tensor:
    """This process's part of a whole tensor where ``other`` is sharded, on its device."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(other, DTensor) or isinstance(value, DTensor):
        return value.to(other.device)
    there = value.to(other.device)
    return distribute_tensor(there, other.device_mesh, other.placements, src_data_rank=None)


def load_whole(module: nn.Module, state: dict[str, Tensor]) -> None:
    """`load_state_dict` of whole tensors into a module that may be sharded."""
    current = module.state_dict()
    module.load_state_dict(
        {name: like(value, current[name]) if name in current else value for name, value in
         state.items()}
    )  # fmt: skip


def _sharded_parts(module: nn.Module) -> list[Any]:
    return [part for part in module.modules() if hasattr(part, "set_requires_gradient_sync")]
