"""How much faster is one forward pass for many sounds than one `generate` call a sound?

    python benchmarks/judge_speed.py [--judge nano-lalm] [--rows 24] [--seconds 5] [--repeats 5]

A judge is asked the paper's question about sounds of noise, in four ways, taken in turn so that a
busy moment hits all of them:

* **answer generated, one by one**: transformers' ``generate`` a sound a call, to the end of the
  answer, as the published reward server does it: the word and the token that ends the turn;
* **one token generated, one by one**: the same, stopped after the word;
  both with the weights as transformers lays them out;
* **forward, one by one**: `AudioLLM.answers` with one row;
* **forward, batched**: `AudioLLM.answers` with all rows.

Times are the best of the repeats and hold the whole way: mel features, tokens, model, answer. The
largest difference of log-odds from the first way is printed beside them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.rewards.audio_llm.model import SAMPLE_RATE_HZ, AudioLLM

NANO_LALM = Path(__file__).resolve().parents[1] / "resonate_audio" / "nano" / "judges" / "nano-lalm"
TEXTS = ("a dog barks", "rain falling and a bell rings twice", "a cow moos, then a door slams")


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--judge", type=Path, default=NANO_LALM, help="a model folder")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    llm = AudioLLM.from_folder(options.judge, torch.device("cpu"), torch.float32)
    plain = AudioLLM.from_folder(options.judge, torch.device("cpu"), torch.float32)
    plain.model.to(memory_format=torch.contiguous_format)
    generator = torch.Generator().manual_seed(0)
    shape = (options.rows, round(options.seconds * SAMPLE_RATE_HZ))
    waves = 0.1 * torch.randn(shape, generator=generator)
    texts = [TEXTS[row % len(TEXTS)] for row in range(options.rows)]
    ways = {
        "answer generated, one by one": lambda: generate_each(plain, waves, texts, 2),
        "one token generated, one by one": lambda: generate_each(plain, waves, texts, 1),
        "forward, one by one": lambda: answer_each(llm, waves, texts),
        "forward, batched": lambda: llm.answers(llm.prepare(waves, texts)).log_odds,
    }
    report(measure(ways, options.repeats), options.rows)


def generate_each(
    llm: AudioLLM, waves: Float[Tensor, "row sample"], texts: list[str], num_tokens: int
) -> Float[Tensor, " row"]:
    """Log-odds from the scores of the first generated token, a sound a call."""
    found = []
    for row, text in enumerate(texts):
        inputs = llm.prepare(waves[row : row + 1], [text])
        made = llm.model.generate(
            **inputs,
            min_new_tokens=num_tokens,
            max_new_tokens=num_tokens,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        scores = made.scores[0][0].float()
        found.append(scores[llm.yes_ids].logsumexp(0) - scores[llm.no_ids].logsumexp(0))
    return torch.stack(found)


def answer_each(
    llm: AudioLLM, waves: Float[Tensor, "row sample"], texts: list[str]
) -> Float[Tensor, " row"]:
    """Log-odds from a forward pass a sound."""
    rows = range(len(texts))
    return torch.cat(
        [llm.answers(llm.prepare(waves[row : row + 1], [texts[row]])).log_odds for row in rows]
    )


def measure(ways: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, tuple[float, Tensor]]:
    """Best seconds and answers of each way; the first call of each is not counted."""
    answers = {name: way() for name, way in ways.items()}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: (best[name], answers[name]) for name in ways}


def report(measured: dict[str, tuple[float, Tensor]], rows: int) -> None:
    """Print a table."""
    slowest, expected = next(iter(measured.values()))
    print("| way | seconds | sounds/s | ratio | largest difference |")
    print("| --- | --- | --- | --- | --- |")
    for name, (seconds, answers) in measured.items():
        difference = float((answers - expected).abs().max())
        print(
            f"| {name} | {seconds:.3f} | {rows / seconds:.1f} | {slowest / seconds:.2f} "
            f"| {difference:.1e} |"
        )


if __name__ == "__main__":
    main()
