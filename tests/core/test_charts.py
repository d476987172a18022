"""Charts: true to the numbers, readable, and safe with any name."""

import math
import re

import pytest

from resonate_audio.core.charts import (
    Chart,
    Line,
    Points,
    mean_around,
    render_chart,
    thin,
    tick_labels,
    ticks,
)


def chart(*lines: Line, stacked: bool = False) -> Chart:
    return Chart("Reward", lines, unit=" s", stacked=stacked)


def ramp(count: int) -> Points:
    return tuple((step, float(step)) for step in range(1, count + 1))


def track(figure: str, kind: str) -> list[tuple[float, float]]:
    """Corners of the first path of a class."""
    (path, *_) = re.findall(rf'<path class="{kind}[^"]*" d="([^"]*)"', figure)
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]


def test_nothing_is_drawn_without_a_point() -> None:
    assert render_chart(chart(Line("empty", ()))) == ""


def test_the_curve_spans_the_picture_from_the_first_step_to_the_last() -> None:
    corners = track(render_chart(chart(Line("r", ((10, 1.0), (20, 3.0), (30, 2.0))))), "line")
    assert [x for x, _ in corners] == [0.0, 500.0, 1000.0]


def test_heights_are_proportional_to_the_values() -> None:
    (_, a), (_, b), (_, c) = track(
        render_chart(chart(Line("r", ((1, 1.0), (2, 2.0), (3, 4.0))))), "line"
    )
    assert (a - c) / (a - b) == pytest.approx(3.0, rel=1e-2)
    assert a > b > c  # downwards in SVG


def test_charts_can_share_an_axis_of_steps() -> None:
    line = Line("r", ((50, 1.0), (100, 2.0)))
    corners = track(render_chart(Chart("t", (line,), steps=(0, 200))), "line")
    assert [x for x, _ in corners] == [250.0, 500.0]


def test_every_step_can_be_read() -> None:
    spread = ((1, 0.25),)
    figure = render_chart(chart(Line("a", ((1, 0.5), (2, 0.75)), spread), Line("b", ((2, 9.0),))))
    assert re.findall(r"<title>([^<]*)</title>", figure) == [
        "step 1\na 0.5 ± 0.25 s",
        "step 2\na 0.75 s\nb 9 s",
    ]


def test_the_places_to_read_cover_the_picture_without_a_gap() -> None:
    figure = render_chart(chart(Line("a", ((1, 0.5), (2, 0.75), (10, 0.1)))))
    places = re.findall(r'class="hit" data-at="[\d.]+" x="([\d.]+)" y="0" width="([\d.]+)"', figure)
    end = 0.0
    for left, width in places:
        assert float(left) == pytest.approx(end, abs=0.11)
        end = float(left) + float(width)
    assert end == pytest.approx(1000.0, abs=0.11)


def test_the_last_values_are_said_in_words() -> None:
    figure = render_chart(chart(Line("a", ((1, 0.5), (7, 0.75)))))
    assert '<p class="reading">step 7 · a 0.75 s</p>' in figure
    assert 'aria-label="Reward by step; last: step 7, a 0.75 s"' in figure


def test_the_band_lies_around_its_line() -> None:
    line = Line("a", ((1, 0.5), (2, 0.5)), ((1, 0.2), (2, 0.2)))
    figure = render_chart(chart(line))
    (_, y), _ = track(figure, "line")
    heights = [height for _, height in track(figure, "band")]
    assert max(heights) - y == pytest.approx(y - min(heights), abs=0.2)
    assert max(heights) > y


def test_columns_are_stacked() -> None:
    figure = render_chart(
        chart(Line("a", ((1, 1.0), (2, 1.0))), Line("b", ((1, 2.0), (2, 1.0))), stacked=True)
    )
    lower, upper = re.findall(r'<path class="bars s\d" d="M0.0 ([\d.]+)V([\d.]+)', figure)
    assert lower[0] == "300.0"
    assert upper[0] == lower[1]
    heights = [float(bottom) - float(top) for bottom, top in (lower, upper)]
    assert heights[1] / heights[0] == pytest.approx(2.0, rel=1e-2)


def test_a_step_without_one_of_the_stacked_numbers_stays_whole() -> None:
    figure = render_chart(
        chart(Line("a", ((1, 1.0),)), Line("b", ((1, 2.0), (2, 1.0))), stacked=True)
    )
    assert "step 2\nb 1 s" in figure


def test_a_single_point_is_a_dot() -> None:
    figure = render_chart(chart(Line("a", ((5, 0.0),))))
    assert 'class="dots s1" d="M500.0 ' in figure


def test_only_charts_of_several_lines_have_a_key() -> None:
    a, b = Line("a", ramp(2)), Line("b", ramp(2), dashed=True)
    assert 'class="keys"' not in render_chart(chart(a))
    assert '<li class="s2 dashed">b</li>' in render_chart(chart(a, b))


def test_names_are_escaped() -> None:
    nasty = '"><script>alert(1)</script>'
    figure = render_chart(Chart(nasty, (Line(nasty, ramp(3)), Line("b", ramp(3))), note=nasty))
    assert "<script" not in figure
    assert '""' not in figure


def test_a_long_run_is_thinned_to_means() -> None:
    thinned, width = thin(chart(Line("a", ramp(1000))), most=100)
    assert width == 10
    assert thinned.lines[0].points[0] == (10, 5.5)
    assert len(thinned.lines[0].points) == 100


def test_thinned_lines_are_cut_at_the_same_steps() -> None:
    rare = tuple(point for point in ramp(1000) if point[0] % 50 == 0)
    thinned, _ = thin(chart(Line("a", ramp(1000)), Line("b", rare)), most=100)
    steps = {step for step, _ in thinned.lines[0].points}
    assert {step for step, _ in thinned.lines[1].points} <= steps


def test_the_last_step_survives_thinning() -> None:
    thinned, _ = thin(chart(Line("a", ramp(1001))), most=100)
    assert thinned.lines[0].points[-1][0] == 1001


def test_a_thinned_chart_says_so() -> None:
    assert "Each point is the mean of 5 logged steps." in render_chart(chart(Line("a", ramp(1000))))


def test_a_short_run_is_not_thinned() -> None:
    short = chart(Line("a", ramp(100)))
    assert thin(short, most=100) == (short, 1)


def test_the_mean_of_neighbours_is_centred() -> None:
    points = ((1, 0.0), (2, 3.0), (3, 6.0), (4, 0.0))
    assert mean_around(points, 3) == ((1, 1.5), (2, 3.0), (3, 3.0), (4, 3.0))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-1.0, 1.0, [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (3.0, 17.0, [5.0, 10.0, 15.0]),
    ],
)
def test_ticks_are_round_numbers_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, most=6 if low == 0 else 5) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 7.3, 1e9])
def test_there_are_two_to_five_ticks_at_any_scale(scale: float) -> None:
    for low in (-3.0, 0.0, 0.1, 2.5):
        assert 2 <= len(ticks(low * scale, (low + 1.7) * scale)) <= 5


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.0, 0.5, 1.0], ["0.0", "0.5", "1.0"]),
        ([-10.0, 0.0, 10.0], ["~10", "0", "10"]),
        ([0.0, 2e-5, 4e-5], ["0", "2e~5", "4e~5"]),
        ([9.5e-6, 1e-5, 1.05e-5], ["9.50e~6", "1.00e~5", "1.05e~5"]),
        ([0.5], ["0"]),
    ],
)
def test_tick_labels_have_the_digits_they_need(values: list[float], texts: list[str]) -> None:
    assert tick_labels(values) == [text.replace("~", "\N{MINUS SIGN}") for text in texts]


def test_neighbouring_ticks_never_read_alike() -> None:
    for power in range(-9, 9):
        values = ticks(1.03 * 10.0**power, 1.09 * 10.0**power)
        assert len(set(tick_labels(values))) == len(values)


@pytest.mark.parametrize("value", [0.0, 1e-300, -5.0, 1e300])
def test_equal_values_can_be_drawn(value: float) -> None:
    figure = render_chart(chart(Line("a", ((1, value), (2, value)))))
    assert "nan" not in figure
    assert all(math.isfinite(y) and 0 <= y <= 300 for _, y in track(figure, "line"))
