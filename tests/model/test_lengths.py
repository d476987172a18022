import pytest

from resonate_audio.model.lengths import num_latent_frames


@pytest.mark.parametrize(
    ("duration_s", "frames"),
    [(1.0, 44), (2.5, 108), (9.975, 430), (10.0, 431), (10.5, 453), (30.0, 1292)],
)
def test_frames_at_44_khz_are_as_published(duration_s: float, frames: int) -> None:
    assert num_latent_frames(duration_s, 44_100, 2 * 512) == frames


@pytest.mark.parametrize(
    ("duration_s", "frames"), [(1.0, 32), (2.5, 79), (9.975, 312), (10.0, 313), (30.0, 938)]
)
def test_frames_at_16_khz_are_as_published(duration_s: float, frames: int) -> None:
    assert num_latent_frames(duration_s, 16_000, 2 * 256) == frames


def test_a_whole_number_of_frames_is_not_rounded_up() -> None:
    assert num_latent_frames(6.4, 16_000, 1024) == 100
