"""How far a long preparation is, told by the line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

INTERVAL_S = 10.0
"""From one line to the next."""

ItemT = TypeVar("ItemT")


def told(items: Iterable[ItemT], total: int, say: Callable[[str], None]) -> Iterator[ItemT]:
    """Give the items, and say now and then what share of ``total`` is done and what is left."""
    started = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last >= INTERVAL_S:
            last = now
            left = format_duration((now - started) / done * (total - done))
            say(f"  {done / total:.0%}, {left} left")
        yield item


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds, as ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
