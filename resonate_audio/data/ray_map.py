"""One function over many items, on the processes of this machine or of a cluster, with Ray Data."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import ConfigError, ResonateError, WorkerError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
LOCAL = "local"
STARTS = 3
LONGEST_FOLDER = 30
"""Bytes of a temporary folder: Ray adds 70 to its name, and a socket's may have 107 (unix(7))."""
SHORT_FOLDER = "/tmp/ray"
"""Where Ray puts its files by itself."""
JOIN = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"
MAX_BLOCKS = 4000
"""Items beyond this many share a block; a block is what is given out, and repeated when lost."""


class RayConfig(FrozenConfig):
    """Where Ray works, and with how much."""

    address: str = LOCAL
    """``local`` starts Ray on this machine and stops it afterwards; ``host:port`` is a cluster."""
    workers: int = Field(1, ge=1, le=100_000)
    """Processes, each with networks of its own."""
    gpus_per_worker: float = Field(0.0, ge=0)
    store_mb: int = Field(200, ge=80, le=100_000_000)
    """Memory for what travels between processes, on this machine only."""
    timeout_s: float = Field(60.0, gt=0)
    """Patience with a cluster that does not answer."""
    max_losses: int = Field(3, ge=0)
    """How often an item is begun anew after its process or machine was lost."""


def map_with_ray(
    items: Sequence[ItemT],
    make_function: Callable[[], Callable[[ItemT], ResultT]],
    config: RayConfig,
) -> Iterator[tuple[int, ResultT]]:
    """Call one function on every item, in processes that keep what the function keeps.

    Ray Data gives an item to a process when it has room, so few are under way at any time. What
    is lost with a process or a machine is begun anew, ``max_losses`` times; so a function that
    writes files must write them atomically.

    Args:
        items: anything that can be pickled; small, so give names of files rather than content.
            ``str`` of an item names it in an error.
        make_function: called once in each process; load networks there.
        config: where to work.

    Yields:
        Number of the item and what the function gave, in the order in which they end.

    Raises:
        ConfigError: Ray is not installed, or nothing answers at the address.
        WorkerError: an item was lost with its process too often.
        ResonateError: the first that the function raises.
    """
    with ray_session(config) as ray:
        ledger = ray.remote(num_cpus=0)(Ledger).remote()
        rows = [{"number": number, "item": _pack(item)} for number, item in enumerate(items)]
        blocks = max(1, min(len(rows), MAX_BLOCKS))
        results = ray.data.from_items(rows, override_num_blocks=blocks).map(
            _Caller,
            fn_constructor_args=(make_function, ledger, config.max_losses),
            compute=ray.data.ActorPoolStrategy(
                size=min(config.workers, len(rows)), max_tasks_in_flight_per_actor=2
            ),
            num_cpus=1,
            num_gpus=config.gpus_per_worker or None,
        )
        for row in results.iter_rows():
            result = _unpack(row["result"])
            if isinstance(result, ResonateError):
                raise result
            yield int(row["number"]), result


class Ledger:
    """Counts how often each item was begun and not ended; lives in a process of its own."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()

    def begin(self, number: int, ended: int | None) -> int:
        """Begin an item after the same process ended another; gives how often it was lost."""
        if ended is not None:
            del self.begun[ended]
        self.begun[number] += 1
        return self.begun[number] - 1


class _Caller:
    """What lives in each process; a mistake of the caller travels back as a result."""

    def __init__(
        self, make_function: Callable[[], Callable[[Any], Any]], ledger: Any, max_losses: int
    ) -> None:
        self.make_function = make_function
        self.function: Callable[[Any], Any] | None = None
        self.ledger, self.max_losses = ledger, max_losses
        self.ended: int | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number, item = row["number"], _unpack(row["item"])
        try:
            result = self.call(number, item)
        except ResonateError as error:
            result = error
        self.ended = number
        return {"number": number, "result": _pack(result)}

    def call(self, number: int, item: Any) -> Any:
        """Call the function, unless the item has cost too many processes already."""
        import ray

        lost = ray.get(self.ledger.begin.remote(number, self.ended))
        if lost > self.max_losses:
            raise WorkerError(
                f"{item}: its process ended {lost} times before it was done, for example because "
                "memory ran out; use fewer workers a machine, or run it without Ray to see why"
            )
        if self.function is None:  # not before: Ray starts a process that fails to start for ever
            self.function = self.make_function()
        return self.function(item)


def _pack(value: Any) -> bytes:
    from ray import cloudpickle

    data: bytes = cloudpickle.dumps(value)
    return data


def _unpack(data: bytes) -> Any:
    from ray import cloudpickle

    return cloudpickle.loads(data)


@contextmanager
def ray_session(config: RayConfig) -> Iterator[Any]:
    """Ray, started here or found at an address, and left again.

    Raises:
        ConfigError: it is not installed, nothing answers, or it does not start.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError("Ray is not installed: pip install 'resonate-audio[data]'") from error
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if config.address == LOCAL:
        store = config.store_mb * 2**20
        options |= {"num_cpus": config.workers, "object_store_memory": store}
        options |= {"include_dashboard": False, "address": LOCAL}
        options |= {"_temp_dir": SHORT_FOLDER} if has_long_temporary_folder() else {}
    else:
        check_address(config.address, config.timeout_s)
        options |= {"address": config.address}
    start_ray(ray, options, config.address)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        yield ray
    finally:
        ray.shutdown()


def has_long_temporary_folder() -> bool:
    """Whether Ray's sockets, put where it would put them, have longer names than sockets can."""
    given = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or ""
    return len(os.fsencode(given)) > LONGEST_FOLDER


def start_ray(ray: Any, options: dict[str, Any], address: str) -> None:
    """Start or join Ray; on a busy machine it may need more than the 30 s that it allows itself.

    Raises:
        ConfigError: it does not start.
    """
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(**options)
            return
        except Exception as error:  # Ray raises nothing narrower
            ray.shutdown()
            if attempt == STARTS:
                reason = " ".join(str(error).split())
                raise ConfigError(f"Ray at {address} does not start: {reason}") from error


def check_address(address: str, timeout_s: float) -> None:
    """Find out whether Ray answers, before it tries for minutes.

    Raises:
        ConfigError: nothing answers, or something else does, or Ray refuses.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"Ray's address {address}: expected HOST:PORT such as 10.0.0.5:6379")
    try:
        socket.create_connection((host, int(port)), timeout=timeout_s).close()
        asked = subprocess.run(  # another process, because Ray cannot be told to give up
            [sys.executable, "-c", JOIN, address],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, OverflowError) as error:
        raise ConfigError(
            f"Ray's address {address}: no Ray answers within {timeout_s:g} s ({_brief(error)}); "
            "`ray status` on the head node says whether it runs"
        ) from error
    if "AuthenticationError" in asked.stderr:
        raise ConfigError(
            f"Ray's address {address}: the cluster wants its token; set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN_PATH where it is not in ~/.ray/auth_token"
        )
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(f"Ray's address {address}: {last}")


def _brief(error: Exception) -> str:
    return "timed out" if isinstance(error, subprocess.TimeoutExpired) else str(error)
