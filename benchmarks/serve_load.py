"""How much does a server gain by batching, and what does it cost a lone client?

    python benchmarks/serve_load.py [--requests 48] [--seconds 1] [--steps 25] [--rounds 3]

Two ways to the same WAV files, taken in turn so that a busy moment hits both:

* **loop**: this process calls the pipeline for one sound after the other and encodes it;
* **server**: ``resonate serve`` in a process of its own, asked over HTTP by 1, 4 and 16 clients.

Both have the same number of CPU threads. Of the rounds, the best of each way is shown. The files of
the two ways are compared byte by byte.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import torch

from resonate_audio.audio.io import FORMATS, encode_audio
from resonate_audio.pipeline.path import Resonate

START = "import typer; from resonate_audio.cli.serve import serve; typer.run(serve)"
CLIENTS = (1, 4, 16)
PROMPTS = ("a dog barks", "rain on a roof", "a bell rings twice", "wind in trees", "a cat meows")


@dataclass(frozen=True)
class Timing:
    """What one way took in one round."""

    num_requests: int
    wall_s: float
    latencies_s: list[float]
    files: dict[int, bytes]

    @property
    def per_s(self) -> float:
        """Sounds a second."""
        return self.num_requests / self.wall_s

    def quantile_ms(self, share: float) -> float:
        """A quantile of the latencies."""
        return 1000 * float(np.quantile(self.latencies_s, share))


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = Resonate.from_pretrained("nano", "cpu")
    with tempfile.TemporaryDirectory() as place:
        server, url = start_server(Path(place), options.threads)
        try:
            ways = make_ways(model, url, options)
            best = measure(ways, options.requests, options.rounds)
        finally:
            server.terminate()
            server.wait()
    report(best)


def make_ways(
    model: Resonate, url: str, options: argparse.Namespace
) -> dict[str, tuple[int, Callable[[int], bytes]]]:
    """Each way: how many ask at once, and how one sound is asked for."""

    def here(number: int) -> bytes:
        [sound] = model.generate(
            PROMPTS[number % len(PROMPTS)],
            duration_s=options.seconds,
            num_inference_steps=options.steps,
            seeds=number,
        )
        return encode_audio(sound, FORMATS[".wav"])

    def there(number: int) -> bytes:
        body = {
            "input": PROMPTS[number % len(PROMPTS)],
            "audio_length": options.seconds,
            "num_inference_steps": options.steps,
            "seed": number,
        }
        return post(f"{url}/v1/audio/generate", body)

    ways = {"loop": (1, here)}
    return ways | {f"server, {count} at once": (count, there) for count in CLIENTS}


def post(url: str, body: dict[str, Any]) -> bytes:
    """Send JSON, get bytes."""
    headers = {"Content-Type": "application/json"}
    request = Request(url, json.dumps(body).encode(), headers)
    with urlopen(request, timeout=600) as answer:
        data: bytes = answer.read()
    return data


def start_server(home: Path, threads: int) -> tuple[subprocess.Popen[str], str]:
    """A server on a free port; ready when its address is printed."""
    command = [sys.executable, "-c", START, "--home", str(home), "--port", "0", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    server = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    )
    assert server.stderr is not None
    for line in server.stderr:
        if "listening on " in line:
            drain = ThreadPoolExecutor(1)
            drain.submit(server.stderr.read)
            drain.shutdown(wait=False)
            return server, line.partition("listening on ")[2].split("/ ")[0]
    raise RuntimeError("the server did not start")


def measure(
    ways: dict[str, tuple[int, Callable[[int], bytes]]], num_requests: int, num_rounds: int
) -> dict[str, Timing]:
    """The best round of each way; the first sound of each is not counted."""
    best: dict[str, Timing] = {}
    for _ in range(num_rounds):
        for name, (count, ask) in ways.items():
            ask(0)
            timing = run_round(count, ask, num_requests)
            if name not in best or timing.per_s > best[name].per_s:
                best[name] = timing
    return best


def run_round(count: int, ask: Callable[[int], bytes], num_requests: int) -> Timing:
    """Let ``count`` clients ask until all requests are answered."""
    files: dict[int, bytes] = {}

    def timed(number: int) -> float:
        start_s = time.perf_counter()
        files[number] = ask(number)
        return time.perf_counter() - start_s

    start_s = time.perf_counter()
    if count == 1:  # in the main thread: a second one would bring a second team of OpenMP threads
        latencies_s = [timed(number) for number in range(num_requests)]
    else:
        with ThreadPoolExecutor(count) as pool:
            latencies_s = list(pool.map(timed, range(num_requests)))
    return Timing(num_requests, time.perf_counter() - start_s, latencies_s, files)


def report(best: dict[str, Timing]) -> None:
    """A line a way, with what it is of the loop."""
    loop = best["loop"]
    heads = ("sounds/s", "p50 ms", "p95 ms", "x loop", "p50/loop")
    print(f"{'way':<22}" + "".join(f"{head:>10}" for head in heads) + "  same")
    for name, timing in best.items():
        same = sum(timing.files[number] == loop.files[number] for number in loop.files)
        print(
            f"{name:<22}{timing.per_s:>10.2f}{timing.quantile_ms(0.5):>10.0f}"
            f"{timing.quantile_ms(0.95):>10.0f}{timing.per_s / loop.per_s:>10.2f}"
            f"{timing.quantile_ms(0.5) / loop.quantile_ms(0.5):>10.2f}"
            f"  {same}/{timing.num_requests}"
        )


if __name__ == "__main__":
    main()
