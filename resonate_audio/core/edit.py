"""What can be done with a sound besides making it from a sentence, as recipes record it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from resonate_audio.core.errors import InputError

LONGEST_S = 600.0
"""Longest sound that is made or taken, seconds: time grows with it, and so does the file."""

EditKind = Literal["vary", "reword", "replace", "extend", "loop", "sequence"]


@dataclass(frozen=True)
class Part:
    """What shall be heard from one moment to another."""

    start_s: float
    stop_s: float
    prompt: str


@dataclass(frozen=True)
class Edit:
    """What a sound was made of besides its prompt: a source, a shape in time, or both."""

    kind: EditKind
    source_sha256: str = ""
    """Of the source's samples and rate; empty when there was none."""
    strength: float | None = None
    """vary, reword: the noise level that the source was brought to."""
    source_prompt: str = ""
    """reword: what the source was said to be."""
    spans_s: tuple[tuple[float, float], ...] = ()
    """replace: start and end of each stretch that was made anew."""
    before_s: float = 0.0
    """extend: what was put before the source."""
    after_s: float = 0.0
    """extend: what was put after it."""
    seam_s: float | None = None
    """loop, of a source: the stretch around its ends that was made anew."""
    parts: tuple[Part, ...] = ()
    """sequence: what is heard when."""

    def check(self, source_s: float | None) -> None:
        """Refuse what cannot be done with a source of this length, or with none.

        Raises:
            InputError: names the field, what is wrong with it, and what would be right.
        """
        if self.kind == "sequence":
            check_parts(self.parts)
        elif source_s is None:
            if self.kind != "loop":
                raise InputError(f"{self.kind}: needs a source")
        elif self.kind in ("vary", "reword"):
            check_strength(self.strength)
        elif self.kind == "replace":
            check_spans(self.spans_s, source_s)
        elif self.kind == "extend":
            check_extension(self.before_s, self.after_s, source_s)
        else:
            check_seam(self.seam_s, source_s)


FINISH_RANGES = {
    "trim_db": (-120.0, -6.0),
    "length_s": (0.001, LONGEST_S),
    "fade_s": (0.0, 60.0),
    "loudness_lufs": (-60.0, -5.0),
    "normalize_db": (-60.0, 0.0),
}
"""Least and most of each field of `Finish`, in its unit."""
AT_ENDS = ("trim_db", "length_s", "fade_s")
"""Fields of `Finish` that change the ends of a sound."""
NO_ENDS = "a loop has no ends, and would lose its seam by it"
LEVELS = {"loudness_lufs", "normalize_db"}
"""Fields of `Finish` of which a sound has one."""


@dataclass(frozen=True)
class Finish:
    """What is done to a finished sound so that it fits among others; nothing by default.

    In this order: trimmed, brought to its length, faded, brought to its level.
    """

    trim_db: float | None = None
    """Cut silence off both ends: what lies this much under the loudest moment, such as -50."""
    length_s: float | None = None
    """Exactly this long, to the sample: the end is cut off, or silence follows."""
    fade_s: float | None = None
    """Length of the fade at either end; where something is cut off, there is a short one anyway."""
    loudness_lufs: float | None = None
    """Integrated loudness, such as -16; peaks that would pass the ceiling are held down."""
    normalize_db: float | None = None
    """True peak against full scale, such as -1."""

    def followed_by(self, later: Finish) -> Finish | None:
        """Both, one after the other, as one; None where their order is not that of `Finish`."""
        done, wanted = self._given(), later._given()
        order = list(FINISH_RANGES)
        last = max(map(order.index, done), default=-1)
        both = done | wanted
        if not all(order.index(name) > last for name in wanted) or both.keys() >= LEVELS:
            return None
        return Finish(**both)

    def _given(self) -> dict[str, float]:
        found = {name: getattr(self, name) for name in FINISH_RANGES}
        return {name: value for name, value in found.items() if value is not None}

    def at_ends(self) -> dict[str, float]:
        """What is wanted at the ends of the sound, by name: a loop has none."""
        return {name: value for name, value in self._given().items() if name in AT_ENDS}

    def __post_init__(self) -> None:
        """Refuse what cannot be done.

        Raises:
            InputError: names the field and its range.
        """
        for name, (low, high) in FINISH_RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"{name} {value:g}: expected a number from {low:g} to {high:g}")
        if self.loudness_lufs is not None and self.normalize_db is not None:
            raise InputError(
                f"loudness_lufs {self.loudness_lufs:g} and normalize_db {self.normalize_db:g}: two "
                "levels for one sound; give one of them"
            )


def check_strength(strength: float | None) -> None:
    """Refuse a noise level that is none.

    Raises:
        InputError: names the value and the range.
    """
    if strength is None or not 0 <= strength <= 1:
        raise InputError(
            f"strength {_shown(strength)}: expected a number from 0 (the same sound) to 1 (a free "
            "take)"
        )


def check_spans(spans_s: Sequence[tuple[float, float]], duration_s: float) -> None:
    """Refuse stretches that a source of this length does not have.

    Raises:
        InputError: names the stretch, what is wrong with it, and what would be right.
    """
    if not spans_s:
        raise InputError("no span: say what to replace, such as 1.5 to 2.25 s")
    for start_s, stop_s in spans_s:
        name = f"span {start_s:g} to {stop_s:g} s"
        if not (math.isfinite(start_s) and math.isfinite(stop_s)):
            raise InputError(f"{name}: expected two numbers of seconds")
        if start_s >= stop_s:
            raise InputError(f"{name}: ends before it begins; expected start < end")
        if start_s < 0 or stop_s > duration_s:
            whole = _rounded_down(duration_s)
            raise InputError(f"{name}: expected it within the source's 0 to {whole} s")
    ordered = sorted(spans_s)
    for (start_s, stop_s), (other_s, end_s) in pairwise(ordered):
        if other_s < stop_s:
            raise InputError(
                f"spans {start_s:g} to {stop_s:g} s and {other_s:g} to {end_s:g} s overlap; "
                "make them one"
            )


def check_parts(parts: Sequence[Part]) -> None:
    """Refuse a sequence that has two prompts for one moment, or none.

    Raises:
        InputError: names the part and what is wrong.
    """
    if not parts:
        raise InputError("no part: say what is heard when, such as 0 to 3 s: rain")
    reached_s = 0.0
    for number, part in enumerate(parts, start=1):
        name = f"part {number}, {part.start_s:g} to {part.stop_s:g} s"
        if not part.prompt.strip():
            raise InputError(f"{name}: has no prompt; describe a sound")
        if not part.start_s < part.stop_s < math.inf:
            raise InputError(f"{name}: ends before it begins; expected start < end")
        if part.start_s < reached_s:
            raise InputError(
                f"{name}: two prompts for one moment, the part before lasts to {reached_s:g} s"
            )
        if part.start_s > reached_s:
            raise InputError(f"{name}: no prompt from {reached_s:g} to {part.start_s:g} s")
        reached_s = part.stop_s


def check_extension(before_s: float, after_s: float, duration_s: float) -> None:
    """Refuse an extension that adds nothing, or too much.

    Raises:
        InputError: names the field and the range.
    """
    for name, value in (("before_s", before_s), ("after_s", after_s)):
        if not 0 <= value <= LONGEST_S:
            raise InputError(f"{name} {value:g}: expected seconds from 0 to {LONGEST_S:g}")
    if before_s == after_s == 0:
        raise InputError("before_s 0 and after_s 0: expected seconds to add at either end")
    whole_s = before_s + duration_s + after_s
    if whole_s > LONGEST_S:
        raise InputError(
            f"before_s {before_s:g} and after_s {after_s:g} make {whole_s:g} s of the source's "
            f"{duration_s:g}: expected {LONGEST_S:g} s at most"
        )


def check_seam(seam_s: float | None, duration_s: float) -> None:
    """Refuse a stretch around a loop's ends that the source does not have.

    Raises:
        InputError: names the value and the range.
    """
    if seam_s is None or not 0 < seam_s < duration_s:
        raise InputError(
            f"seam_s {_shown(seam_s)}: expected more than 0 and less than the source's "
            f"{_rounded_down(duration_s)} s"
        )


def _rounded_down(seconds: float) -> str:
    """A limit to the microsecond: what is shown is within it."""
    return f"{math.floor(seconds * 1e6) / 1e6:.10g}"


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:g}"
