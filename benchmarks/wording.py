"""Does a model make the same sound when it is asked in other words?

    python benchmarks/wording.py [--model nano]

Every prompt of one sound in ``fresh.jsonl`` and ``held-out.jsonl`` is put in other words, two takes
of five seconds each from the same seeds, and the judges are asked whether it is the sound of the
*plain* prompt. Differences to the plain prompt's takes in pairs, 95 % intervals over prompts. None
of these words is around a caption that nano was trained on (`recipes/nano/pack`, ``WAYS``).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

import torch
from feedback_gain import intervals, judged, told

from resonate_audio import Resonate
from resonate_audio.core.documents.json_text import read_json_lines
from resonate_audio.nano.bundle import PROMPTS_FOLDER

TEMPLATES = (
    "an audio clip of {}", "I want to hear {}, please", "{}, loud and crisp, best quality",
    "SFX {} 01", "listen to {} right here",
)  # fmt: skip
WORDINGS: dict[str, Callable[[str], str]] = {text: text.format for text in TEMPLATES}
WORDINGS["without articles"] = lambda text: re.sub(r"\b(a|an|the) ", "", text)


def main() -> None:
    """Make, judge, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = Resonate.from_pretrained(options.model, device="cpu")
    lines = [single_sounds()]
    plain = judged(model, lines)
    print(f"{len(lines[0])} prompts as they are: {told(plain)}", flush=True)
    for name, wording in WORDINGS.items():
        other = judged(model, lines, wording=wording)
        print(f"{name}: {told(other)}\n  {intervals([(other - plain).mean(1)])}", flush=True)


def single_sounds() -> list[dict[str, str]]:
    """Prompts of one sound, each once."""
    found = {
        line["prompt"]: line
        for name in ("fresh", "held-out")
        for _, line in read_json_lines(PROMPTS_FOLDER / f"{name}.jsonl")
        if line["form"] == "single"
    }
    return list(found.values())


if __name__ == "__main__":
    main()
