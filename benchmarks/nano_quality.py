"""Does a listener who knows only real sounds recognise what nano was asked for?

    python benchmarks/nano_quality.py [--model nano] [--corpus ../shared/corpus] [--takes 4]

A judge (``tagger.py``) is trained on the real training clips of the corpus and names one of its
classes for each sound. Four kinds of sounds are named, class by class:

* real val and test clips, which no training has met: the **ceiling**;
* the same clips through nano's vocoder, and through its VAE and vocoder, with the mean absolute
  error of the log-mel in dB: what the decoder alone loses;
* nano's sounds: ``--takes`` per class, each prompted with a caption of a training clip of the
  class (drawn by a fixed seed), with the model's own steps and guidance unless told otherwise.

Which classes count. The judge learns every class with at least 8 training clips from at least 3
recordings. A class *can be told apart* when at least half of its training clips are recognised in
cross-validation (by the network that has not met their group) and it has a held-out clip to measure
the ceiling on. Held-out clips are not used to choose classes, so the ceiling is not flattered by
the choice. The most frequent 40 are those with the most training clips among them. A stricter
reading, printed beside, keeps only classes whose held-out clips are recognised at least half the
time.

``--ear second`` is another network that knows half of the recordings (``tagger.py``): for what is
finished, once, and for no choice.

Accuracy is the mean over classes of the share of a class's clips named right (top 1 of all learnt
classes). Intervals are 95 % bootstraps over classes, then over clips within a class.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tagger
import torch
from tagger import Clip, Judge

from resonate_audio.core.errors import ResonateError

if TYPE_CHECKING:
    from resonate_audio.pipeline.path import Resonate

NUM_FREQUENT = 40
TELLABLE_RECALL = 0.5
TARGETS = {"all": 0.70, "frequent": 0.85}
NUM_BOOTSTRAPS = 2000
CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
CACHE = Path.home() / ".cache" / "resonate-audio" / "nano-quality"


@dataclass
class Hits:
    """Right and wrong answers of the judge, by the class that was meant."""

    by_class: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    error_db: float | None = None
    """Mean absolute log-mel error, where the original is known."""

    def add(self, meant: Sequence[str], named: Sequence[str]) -> Hits:
        """Count one batch of answers."""
        for label, name in zip(meant, named, strict=True):
            self.by_class[label].append(label == name)
        return self

    def recall(self, label: str) -> float:
        """Share of a class that was named right, 0 if it was never asked."""
        answers = self.by_class.get(label, [])
        return sum(answers) / max(1, len(answers))

    def accuracy(self, classes: Sequence[str]) -> float:
        """Mean over classes of the share named right."""
        return float(np.mean([self.recall(label) for label in classes]))

    def resampled(
        self, classes: Sequence[str], drawn: np.ndarray, chooser: np.random.Generator
    ) -> np.ndarray:
        """Accuracy of each drawn set of classes, every class's answers drawn anew too.

        Args:
            classes: names that ``drawn`` has the indices of.
            drawn: (draw, class) indices.
            chooser: of the answers.

        Returns:
            One accuracy a draw.
        """
        counts = np.array([max(1, len(self.by_class.get(label, []))) for label in classes])
        recalls = np.array([self.recall(label) for label in classes])
        return (chooser.binomial(counts[drawn], recalls[drawn]) / counts[drawn]).mean(1)


@dataclass(frozen=True)
class Classes:
    """The classes that are scored, most frequent first."""

    all: tuple[str, ...]
    strict: tuple[str, ...]

    def frequent(self, strict: bool = False) -> tuple[str, ...]:
        """The 40 with the most training clips."""
        return (self.strict if strict else self.all)[:NUM_FREQUENT]


def tellable_classes(
    clips: Sequence[Clip], judge: Judge, cross: Hits, held: Hits, limit: int | None
) -> Classes:
    """Classes the judge can tell apart (see the head of this file), most frequent first."""
    frequency = Counter(clip.label for clip in clips if not clip.held_out)
    learnt = sorted(judge.classes, key=lambda label: (-frequency[label], label))
    told = [c for c in learnt if cross.recall(c) >= TELLABLE_RECALL and held.by_class.get(c)]
    told = told[:limit]
    return Classes(tuple(told), tuple(c for c in told if held.recall(c) >= TELLABLE_RECALL))


# ---------------------------------------------------------------- sounds of the model


def prompts_of(
    clips: Sequence[Clip], classes: Sequence[str], takes: int
) -> list[tuple[str, str, int]]:
    """(class, caption, seed) of each sound to generate: captions of training clips, drawn."""
    captions: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for clip in clips:
        if not clip.held_out:
            captions[clip.label].append(clip.captions)
    rows = []
    for label in classes:
        chooser = np.random.default_rng(list(label.encode()))
        for _ in range(takes):
            offered = captions[label][chooser.integers(len(captions[label]))]
            rows.append((label, offered[chooser.integers(len(offered))], len(rows)))
    return rows


def generate_and_tag(
    pipeline: Resonate,
    judge: Judge,
    rows: Sequence[tuple[str, str, int]],
    options: argparse.Namespace,
    say: Callable[[str], None],
) -> tuple[Hits, list[tuple[str, str, str]]]:
    """Generate every row, let the judge name it; returns the hits and (class, caption, named)."""
    hits, named, begun = Hits(), [], time.perf_counter()
    for start in range(0, len(rows), options.batch):
        batch = rows[start : start + options.batch]
        sounds = pipeline.generate(
            [caption for _, caption, _ in batch],
            duration_s=options.duration,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            guidance_low=options.guidance_low,
            solver=options.solver,
            seeds=[seed for _, _, seed in batch],
        )
        names = judge.tag_sounds([at_judge_rate(s.samples, s.sample_rate_hz) for s in sounds])
        hits.add([label for label, _, _ in batch], names)
        named += [(row[0], row[1], name) for row, name in zip(batch, names, strict=True)]
        done = start + len(batch)
        if (start // options.batch) % 8 == 0 or done == len(rows):
            spent_s = time.perf_counter() - begun
            left_s = spent_s / done * (len(rows) - done)
            say(f"generated {done} of {len(rows)} in {spent_s:.0f} s, {left_s:.0f} s left")
    return hits, named


def at_judge_rate(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Resample to the rate the judge hears."""
    import soxr

    return np.asarray(soxr.resample(samples, sample_rate_hz, tagger.SAMPLE_RATE_HZ), np.float32)


@torch.inference_mode()
def reconstruct(
    pipeline: Resonate, samples: np.ndarray, through_vae: bool
) -> tuple[np.ndarray, float]:
    """Pass a real sound through (VAE and) vocoder; returns it and its log-mel error in dB.

    The sound is padded by silence to whole latent frames and cut back afterwards; the error is
    measured on the sound that came out, not on the mel in between.
    """
    from resonate_audio.audio.mel import MelFrontEnd

    config = pipeline.config.mel
    front_end = MelFrontEnd(config).to(pipeline.device)
    wave = torch.from_numpy(resample_to(samples, config.sample_rate_hz)).to(pipeline.device)
    whole = config.hop_samples * pipeline.vae.hops_per_frame
    padded = torch.nn.functional.pad(wave, (0, -len(wave) % whole))[None]
    mel = front_end(padded)
    decoded = pipeline.vae.decode(pipeline.vae.encode(mel).mean) if through_vae else mel
    made = pipeline.vocoder(decoded)[..., : padded.shape[-1]]
    unit_db = 20.0 if config.log == "log10" else 20 / np.log(10)
    error_db = (audible_db(unit_db * front_end(made)) - audible_db(unit_db * mel)).abs().mean()
    return at_judge_rate(made[0, : len(wave)].cpu().numpy(), config.sample_rate_hz), float(error_db)


def audible_db(mel_db: torch.Tensor, range_db: float = 70) -> torch.Tensor:
    """Lift what lies far below the clip's loudest cell, which nobody hears, to one floor."""
    return mel_db.clamp_min(mel_db.max() - range_db)


def resample_to(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """From the judge's rate to the model's."""
    import soxr

    return np.asarray(soxr.resample(samples, tagger.SAMPLE_RATE_HZ, sample_rate_hz), np.float32)


def reconstructions(
    pipeline: Resonate, judge: Judge, held: dict[str, list[np.ndarray]], through_vae: bool
) -> Hits:
    """Hits on the held-out clips after (VAE and) vocoder, with the mean error."""
    hits, errors = Hits(), []
    for label, sounds in held.items():
        made = [reconstruct(pipeline, samples, through_vae) for samples in sounds]
        hits.add([label] * len(made), judge.tag_sounds([sound for sound, _ in made]))
        errors += [error for _, error in made]
    hits.error_db = float(np.mean(errors))
    return hits


# ---------------------------------------------------------------- table


def interval(
    hits: Hits, classes: Sequence[str], ceiling: Hits | None = None
) -> tuple[float, float]:
    """95 % bootstrap of the accuracy, or of its ratio to the ceiling's."""
    chooser = np.random.default_rng(0)
    drawn = chooser.integers(len(classes), size=(NUM_BOOTSTRAPS, len(classes)))
    values = hits.resampled(classes, drawn, chooser)
    if ceiling is not None:
        values = values / ceiling.resampled(classes, drawn, chooser).clip(1e-9)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def row(name: str, hits: Hits, sets: Sequence[Sequence[str]]) -> str:
    """One line of the table: number of clips, error, accuracy on each set of classes."""
    num_clips = sum(len(hits.by_class[label]) for label in sets[0])
    error = "" if hits.error_db is None else f"{hits.error_db:.1f} dB"
    cells = [
        "{:.1%} [{:.1%}, {:.1%}]".format(hits.accuracy(classes), *interval(hits, classes))
        for classes in sets
    ]
    return f"| {name} | {num_clips} | {error} | " + " | ".join(cells) + " |"


def ratio_row(name: str, hits: Hits, ceiling: Hits, sets: Sequence[Sequence[str]]) -> str:
    """The line of ratios to the ceiling."""
    cells = []
    for classes in sets:
        ratio = hits.accuracy(classes) / max(ceiling.accuracy(classes), 1e-9)
        cells.append("**{:.1%}** [{:.1%}, {:.1%}]".format(ratio, *interval(hits, classes, ceiling)))
    return f"| {name} | | | " + " | ".join(cells) + " |"


def table(classes: Classes, results: dict[str, Hits]) -> list[str]:
    """Markdown of all results; those with a name that starts with "real, h" are the ceiling."""
    sets = [classes.all, classes.frequent(), classes.strict, classes.frequent(strict=True)]
    ceiling = results["real, held out (the ceiling)"]
    lines = [
        f"| what the judge hears | clips | log-mel error | all {len(sets[0])} classes | "
        f"{len(sets[1])} most frequent | strict: {len(sets[2])} classes | "
        f"strict: {len(sets[3])} most frequent |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [row(name, hits, sets) for name, hits in results.items()]
    for name, hits in results.items():
        if not name.startswith("real, "):
            lines.append(ratio_row(f"{name} / ceiling", hits, ceiling, sets))
    lines.append(f"| target | | | {TARGETS['all']:.0%} | {TARGETS['frequent']:.0%} | | |")
    return lines


def difference(hits: Hits, other: Hits, classes: Sequence[str]) -> str:
    """Accuracy less another model's on the same prompts and seeds; bootstrap over classes."""
    gains = np.array(
        [np.mean(np.subtract(hits.by_class[c], other.by_class[c], dtype=float)) for c in classes]
    )
    drawn = np.random.default_rng(0).integers(len(gains), size=(NUM_BOOTSTRAPS, len(gains)))
    low, high = np.quantile(gains[drawn].mean(1), [0.025, 0.975])
    return f"{gains.mean():+.1%} [{low:+.1%}, {high:+.1%}]"


def class_rows(
    classes: Classes, results: dict[str, Hits], named: list[tuple[str, str, str]]
) -> str:
    """Per class: what was named right, and what nano's sounds were taken for instead."""
    taken: dict[str, Counter[str]] = defaultdict(Counter)
    for label, _, name in named:
        if name != label:
            taken[label][name] += 1
    lines = [f"| class | {' | '.join(results)} | taken for |", "| --- " * (len(results) + 2) + "|"]
    for label in classes.all:
        cells = [f"{sum(h.by_class[label])}/{len(h.by_class[label])}" for h in results.values()]
        wrong = ", ".join(f"{name} {count}" for name, count in taken[label].most_common(3))
        lines.append(f"| {label} | {' | '.join(cells)} | {wrong} |")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- run


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="nano", help="name, folder or hub id")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder with manifest.jsonl")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the judge is kept")
    parser.add_argument("--ear", choices=list(tagger.RUNS), default="first", help="which tagger")
    parser.add_argument("--takes", type=int, default=4, help="sounds per class")
    parser.add_argument("--steps", type=int, help="the model's own if absent")
    parser.add_argument("--guidance", type=float, help="the model's own if absent")
    parser.add_argument("--guidance-low", type=float, default=0.0, help="noise level of the last")
    parser.add_argument("--solver", default="euler", help="rule of one step")
    parser.add_argument("--duration", type=float, help="seconds; the model's own if left out")
    parser.add_argument("--batch", type=int, default=8, help="sounds generated at a time")
    parser.add_argument("--limit", type=int, help="score only the most frequent so many classes")
    parser.add_argument("--judge-only", action="store_true", help="train the judge and its ceiling")
    parser.add_argument("--skip-decoder", action="store_true", help="leave out VAE and vocoder")
    parser.add_argument("--details", type=Path, help="write a table by class there (markdown)")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--against", type=Path, help="--json of another model, asked the same")
    return parser.parse_args(arguments)


def measure(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[Classes, dict[str, Hits], list[tuple[str, str, str]]]:
    """Train or load the judge, then let it hear everything."""
    clips = tagger.read_clips(options.corpus)
    pictures, held_samples = tagger.picture_corpus(options.corpus, clips, options.cache)
    judge, tags = tagger.make_judge(clips, pictures, options.cache, tagger.RUNS[options.ear], say)
    label_of = {clip.id: clip.label for clip in clips}
    cross = Hits().add([label_of[key] for key in tags], list(tags.values()))
    held = [i for i, c in enumerate(clips) if c.held_out and c.label in judge.classes]
    ceiling = Hits().add(
        [clips[i].label for i in held], judge.tag_pictures([pictures[i] for i in held])
    )
    say(
        f"judge: {len(judge.classes)} classes learnt; of single clips it names "
        f"{share(cross)} right in cross-validation, {share(ceiling)} of the held-out ones"
    )
    classes = tellable_classes(clips, judge, cross, ceiling, options.limit)
    say(f"{len(classes.all)} classes can be told apart, {len(classes.strict)} by the strict rule")
    results = {"real, cross-validated": cross, "real, held out (the ceiling)": ceiling}
    if options.judge_only:
        return classes, results, []
    from resonate_audio.pipeline.path import Resonate

    pipeline = Resonate.from_pretrained(options.model)
    if not options.skip_decoder:
        by_class = defaultdict(list)
        for index in held:
            if clips[index].label in classes.all:
                by_class[clips[index].label].append(held_samples[index])
        for name, through_vae in (("vocoder", False), ("VAE + vocoder", True)):
            hits = reconstructions(pipeline, judge, by_class, through_vae)
            results[f"held out → {name}"] = hits
            say(f"{name}: accuracy {hits.accuracy(classes.all):.1%}, {hits.error_db:.1f} dB")
    rows = prompts_of(clips, classes.all, options.takes)
    hits, named = generate_and_tag(pipeline, judge, rows, options, say)
    results[f"{options.model}, prompted"] = hits
    return classes, results, named


def share(hits: Hits) -> str:
    """Share of all answers that were right."""
    answers = [answer for label in hits.by_class.values() for answer in label]
    return f"{np.mean(answers):.1%} of {len(answers)}"


def main(arguments: Sequence[str]) -> int:
    """Print the table; exit 2 with one line on a mistake of the caller."""
    options = read_options(arguments)
    try:
        classes, results, named = measure(options, say=lambda line: print(line, flush=True))
    except ResonateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\nmachine: {torch.get_num_threads()} CPU threads, torch {torch.__version__}")
    steps, guidance = options.steps or "its own", options.guidance or "its own"
    print(f"options: {steps} steps, guidance {guidance}, {options.takes} takes\n")
    print("\n".join(table(classes, results)))
    if options.against:
        [(name, hits), [_, other]] = (
            [*results.items()][-1],
            [*json.loads(options.against.read_text(encoding="utf-8"))["hits"].items()][-1],
        )
        cells = (difference(hits, Hits(other), kind) for kind in (classes.all, classes.strict))
        print(f"\n{name}, less {options.against.stem}, all and strict: {', '.join(cells)}")
    if options.details:
        options.details.write_text(class_rows(classes, results, named), encoding="utf-8")
    if options.json:
        numbers = {name: dict(hits.by_class) for name, hits in results.items()}
        options.json.write_text(json.dumps({"classes": classes.all, "hits": numbers}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
