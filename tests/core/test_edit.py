from __future__ import annotations

import math

import pytest

from resonate_audio.core.edit import (
    Part,
    check_extension,
    check_parts,
    check_seam,
    check_spans,
    check_strength,
)
from resonate_audio.core.errors import InputError


@pytest.mark.parametrize("strength", [-0.01, 1.01, math.nan, math.inf])
def test_a_strength_outside_0_to_1_is_refused(strength: float) -> None:
    with pytest.raises(InputError, match=r"strength .*: expected a number from 0"):
        check_strength(strength)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([], "no span"),
        ([(3.0, 1.0)], "span 3 to 1 s: ends before it begins"),
        ([(1.0, 1.0)], "span 1 to 1 s: ends before it begins"),
        ([(4.0, 6.0)], "span 4 to 6 s: expected it within the source's 0 to 5 s"),
        ([(-1.0, 2.0)], "span -1 to 2 s: expected it within"),
        ([(math.nan, 2.0)], "span nan to 2 s: expected two numbers"),
        ([(2.0, 4.0), (1.0, 3.0)], "spans 1 to 3 s and 2 to 4 s overlap"),
    ],
)
def test_spans_that_the_source_does_not_have_are_refused(
    spans: list[tuple[float, float]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_spans(spans, 5.0)


def test_spans_may_touch_and_stand_in_any_order() -> None:
    check_spans([(3.0, 5.0), (0.0, 1.0), (1.0, 2.0)], 5.0)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "no part"),
        (
            [(0.0, 3.0, "rain"), (2.0, 5.0, "thunder")],
            "part 2, 2 to 5 s: two prompts for one moment",
        ),
        ([(0.0, 3.0, "rain"), (4.0, 5.0, "thunder")], "part 2, 4 to 5 s: no prompt from 3 to 4 s"),
        ([(1.0, 3.0, "rain")], "no prompt from 0 to 1 s"),
        ([(0.0, 3.0, " ")], "part 1, 0 to 3 s: has no prompt"),
        ([(0.0, 0.0, "rain")], "part 1, 0 to 0 s: ends before it begins"),
    ],
)
def test_a_sequence_has_one_prompt_for_every_moment(
    parts: list[tuple[float, float, str]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_parts([Part(*part) for part in parts])


@pytest.mark.parametrize(
    ("before_s", "after_s", "message"),
    [
        (0.0, 0.0, "before_s 0 and after_s 0"),
        (-1.0, 2.0, "before_s -1"),
        (0.0, math.nan, "after_s nan"),
        (400.0, 400.0, "make 805 s of the source's 5"),
    ],
)
def test_an_extension_adds_something_and_not_too_much(
    before_s: float, after_s: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_extension(before_s, after_s, 5.0)


@pytest.mark.parametrize("seam_s", [0.0, 5.0, -1.0, math.nan])
def test_a_seam_is_a_part_of_the_source(seam_s: float) -> None:
    with pytest.raises(InputError, match="seam_s"):
        check_seam(seam_s, 5.0)
