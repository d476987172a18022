import numpy as np

from resonate_audio.data.mixing import (
    BACKGROUND_GAIN,
    fade_out,
    in_sequence,
    lay,
    repeated,
    together,
)

RATE_HZ = 1000


def tone(num_samples: int, level: float = 0.5) -> np.ndarray:
    return np.full(num_samples, level, dtype=np.float32)


def test_events_are_added_where_they_start() -> None:
    canvas = lay([tone(3, 0.25), tone(2, 0.5)], [0, 2], 6)
    np.testing.assert_allclose(canvas, [0.25, 0.25, 0.75, 0.5, 0, 0])


def test_a_loud_sum_is_scaled_to_just_below_full_scale() -> None:
    canvas = lay([tone(4, 0.9), tone(4, 0.9)], [0, 0], 4)
    np.testing.assert_allclose(np.abs(canvas).max(), 0.99, rtol=1e-6)


def test_a_quiet_sum_is_not_raised() -> None:
    np.testing.assert_array_equal(lay([tone(4, 0.1)], [0], 4), tone(4, 0.1))


def test_what_reaches_past_the_canvas_fades_to_silence() -> None:
    cut = fade_out(tone(500), 100)
    assert len(cut) == 100
    assert cut[-1] == 0
    np.testing.assert_array_equal(cut[:98], tone(98))


def test_a_sound_that_fits_is_left_alone() -> None:
    samples = tone(50)
    assert fade_out(samples, 100) is samples


def test_repeats_leave_silence_between_events() -> None:
    canvas = repeated([tone(200)] * 3, 5000, np.random.default_rng(0), RATE_HZ)
    rises = np.flatnonzero(np.diff(np.concatenate([[0], canvas > 0]).astype(int)) == 1)
    assert len(rises) == 3
    assert (np.diff(rises) >= 200 + 150).all()


def test_the_first_event_is_kept_even_when_it_does_not_fit() -> None:
    assert np.abs(repeated([tone(900)], 800, np.random.default_rng(0), RATE_HZ)).max() > 0


def test_together_lowers_the_background_and_names_both() -> None:
    quiet = together(tone(10, 0.0), tone(1000), ("a knock", "rain"), 1000, np.random.default_rng(0))
    np.testing.assert_allclose(quiet.samples, 0.5 * BACKGROUND_GAIN)
    assert "a knock" in quiet.caption
    assert "rain" in quiet.caption


def test_a_sequence_is_heard_in_the_order_of_its_caption() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scene = in_sequence([tone(300, 0.2), tone(300, 0.4)], ["one", "two"], 2000, rng, RATE_HZ)
        first, second = np.flatnonzero(scene.samples == np.float32(0.2)), scene.samples > 0.3
        assert first.max() < np.flatnonzero(second).min()
        assert scene.caption.index("one") < scene.caption.index("two")


def test_three_events_share_the_canvas() -> None:
    rng = np.random.default_rng(1)
    scene = in_sequence(
        [tone(5000, level) for level in (0.1, 0.2, 0.3)], list("abc"), 6000, rng, 10
    )
    assert all((scene.samples == np.float32(level)).any() for level in (0.1, 0.2, 0.3))
