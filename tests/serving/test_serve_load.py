"""Two hundred clients at once: good ones, bad ones, slow ones, and some that go away."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest
from running import QUICK, Running

from resonate_audio.audio.io import decode_audio

pytest.importorskip("uvicorn", reason='needs pip install "resonate-audio[serve]"')
NUM_CLIENTS = 200
MAX_GROWTH_MB = 100.0


def memory_mb(server: Running) -> float:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1000


async def good(client: httpx2.AsyncClient, number: int) -> str:
    body = {"input": f"sound {number}", "seed": number, **QUICK}
    answer = await client.post("/v1/audio/generate", json=body)
    if answer.status_code == 429:
        assert int(answer.headers["retry-after"]) >= 1
        return "full"
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-resonate-seed"] == str(number)
    recipe = decode_audio(answer.content, "answer").recipe
    assert recipe is not None
    assert (recipe.prompt, recipe.seed) == (f"sound {number}", number)
    return "good"


async def bad(client: httpx2.AsyncClient, number: int) -> str:
    bodies: list[dict[str, Any]] = [{"input": ""}, {"input": "x", "n": -number}, {"seed": 1}, {}]
    answer = await client.post("/v1/audio/generate", json=bodies[number // 5 % len(bodies)])
    assert answer.status_code == 422, answer.text
    return "bad"


async def slow(client: httpx2.AsyncClient, number: int) -> str:
    """A client that sends its request a few letters at a time."""

    async def letters() -> Any:
        text = f'{{"input": "rain", "seed": {number}, "num_inference_steps": 2, "audio_length": 1}}'
        for start in range(0, len(text), 16):
            yield text[start : start + 16].encode()
            await asyncio.sleep(0.05)

    headers = {"Content-Type": "application/json"}
    answer = await client.post("/v1/audio/generate", content=letters(), headers=headers)
    assert answer.status_code in (200, 429), answer.text
    return "slow"


async def gone(client: httpx2.AsyncClient, number: int) -> str:
    body = {"input": "rain", "num_inference_steps": 25, "audio_length": 10.0, "n": 2}
    try:
        answer = await client.post("/v1/audio/generate", json=body, timeout=0.3)
    except httpx2.TimeoutException:
        return "gone"
    assert answer.status_code == 429, answer.text
    return "full"


async def job(client: httpx2.AsyncClient, number: int) -> str:
    answer = await client.post("/v1/jobs", json={"input": "rain", "seed": number, **QUICK})
    if answer.status_code == 429:
        return "full"
    assert answer.status_code == 202, answer.text
    path = f"/v1/jobs/{answer.json()['id']}"
    if number % 2:
        await client.delete(path)
    while (found := (await client.get(path)).json())["ended"] is None:
        await asyncio.sleep(0.2)
    assert found["status"] in (("succeeded", "cancelled") if number % 2 else ("succeeded",))
    assert len(found["sounds"]) == (found["status"] == "succeeded")
    return "job"


async def all_at_once(server: Running) -> Counter[str]:
    kinds = (good, bad, slow, gone, job)
    limits = httpx2.Limits(max_connections=NUM_CLIENTS)
    async with httpx2.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
        asked = [kinds[number % 5](client, number) for number in range(NUM_CLIENTS)]
        return Counter(await asyncio.gather(*asked))


@pytest.mark.slow
def test_two_hundred_clients_at_once_each_get_their_own_answer(tmp_path: Path) -> None:
    with Running(tmp_path / "home", "--set", "max_open_jobs=150") as server:
        server.generate(n=16)
        asyncio.run(all_at_once(server))
        before_mb = memory_mb(server)
        found = asyncio.run(all_at_once(server))
        assert sum(found.values()) == NUM_CLIENTS
        assert found["bad"] == 40
        assert found["good"] > 0
        assert server.client.get("/health").json() == {"status": "ok", "queued_sounds": 0}
        assert memory_mb(server) - before_mb < MAX_GROWTH_MB
        text = server.client.get("/metrics").text
        assert 'status="500"' not in text
