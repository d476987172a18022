"""How fast is nano on this machine's CPU?

    python benchmarks/nano_speed.py [--threads 2] [--repeats 3] [--model nano]

Prints seconds to load the model in a fresh process, to make one sound of ten seconds as it comes
(its own steps and guidance), and to make sixteen of them one at a time and in one batch, with the
ratio of their rates. Loading is measured as the difference between two fresh processes, one that
loads the model and one that only imports torch. Times are the best of the repeats.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from resonate_audio import Resonate

NUM_SOUNDS = 16
TARGET_LOAD_S, TARGET_SOUND_S, TARGET_BATCH_GAIN = 3.0, 1.5, 1.5


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load_s = measure_load(options.model, options.repeats)
    model = Resonate.from_pretrained(options.model, device="cpu")
    prompts = [f"a dog barks {number} times" for number in range(NUM_SOUNDS)]
    one_s = best(lambda: model.generate(prompts[:1], seeds=0), options.repeats)
    apart_s = best(lambda: [model.generate(text, seeds=0) for text in prompts], options.repeats)
    batch_s = best(lambda: model.generate(prompts, seeds=0), options.repeats)
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads,", end=" ")
    print(f"torch {torch.__version__}, python {platform.python_version()}")
    rows = [
        ("load, beyond importing torch", load_s, TARGET_LOAD_S, "s at most"),
        (f"one sound of {model.config.default_duration_s:g} s", one_s, TARGET_SOUND_S, "s at most"),
        (f"{NUM_SOUNDS} sounds one at a time", apart_s, None, ""),
        (f"{NUM_SOUNDS} sounds in one batch", batch_s, None, ""),
        ("clips per second, batch / one at a time", apart_s / batch_s, TARGET_BATCH_GAIN, "x"),
    ]
    for name, value, target, unit in rows:
        goal = "" if target is None else f"target {target:g} {unit}"
        print(f"{name:42} {value:8.2f}  {goal}")
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{'peak memory of the process, GiB':42} {peak_gib:8.2f}")


def measure_load(name: str, repeats: int) -> float:
    """Seconds that loading adds to a fresh process."""
    load = f"from resonate_audio import Resonate; Resonate.from_pretrained({name!r}, device='cpu')"
    return best(lambda: run(load), repeats) - best(lambda: run("import torch"), repeats)


def run(code: str) -> None:
    """Run Python code in a fresh process."""
    subprocess.run([sys.executable, "-c", code], check=True)


def best(function: Callable[[], object], repeats: int) -> float:
    """Shortest of several runs, seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
