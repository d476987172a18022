from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from resonate_audio.rewards.remote.transport import Places, retry_after_s


def test_places_are_given_in_turn_and_given_back() -> None:
    places, order = Places(1), []

    async def work(name: int) -> None:
        async with places.one():
            order.append(name)
            await asyncio.sleep(0)
            order.append(name)

    async def main() -> None:
        await asyncio.gather(*(work(name) for name in range(3)))

    asyncio.run(main())
    assert order == [0, 0, 1, 1, 2, 2]


async def hold(places: Places) -> None:
    async with places.one():
        await asyncio.sleep(60)


def test_who_is_cancelled_while_waiting_keeps_no_place() -> None:
    places = Places(1)

    async def main() -> None:
        tasks = [asyncio.create_task(hold(places)) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(1), places.one():
            pass

    asyncio.run(main())


def test_who_is_cancelled_as_its_turn_comes_gives_the_place_back() -> None:
    places = Places(1)

    async def main() -> None:
        async with places.one():
            task = asyncio.create_task(hold(places))
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(1), places.one():
            pass

    asyncio.run(main())


def test_places_bound_the_work_of_several_event_loops() -> None:
    places, at_once, most = Places(3), 0, 0
    lock = threading.Lock()

    async def work() -> None:
        nonlocal at_once, most
        async with places.one():
            with lock:
                at_once += 1
                most = max(most, at_once)
            await asyncio.sleep(0.005)
            with lock:
                at_once -= 1

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(10)))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 3


@pytest.mark.parametrize(
    ("header", "expected_s"), [("3", 3.0), ("0.25", 0.25), ("-1", 0.0), ("", 0.0), ("soon", 0.0)]
)
def test_retry_after_in_seconds(header: str, expected_s: float) -> None:
    assert retry_after_s(header) == expected_s


@pytest.mark.parametrize("ahead_s", [100.0, -100.0])
def test_retry_after_as_a_date(ahead_s: float) -> None:
    header = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_s), usegmt=True)
    assert retry_after_s(header) == pytest.approx(max(ahead_s, 0.0), abs=2.0)
