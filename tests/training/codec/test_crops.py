import pytest
import torch
from pydantic import ValidationError

from resonate_audio.training.codec.crops import CropConfig, vary


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def crops(rows: int = 200) -> torch.Tensor:
    return 0.1 + 0.01 * torch.arange(rows)[:, None].expand(rows, 30) / rows


def test_gains_are_drawn_from_the_whole_range() -> None:
    wave = torch.full((2000, 4), 0.1)
    gains_db = 20 * (vary(wave, CropConfig(gain_db=(-14.0, 4.0)), seeded())[:, 0] / 0.1).log10()
    assert -14.001 <= gains_db.min() < -13.5
    assert 3.5 < gains_db.max() <= 4.001


def test_a_late_crop_begins_with_silence_of_up_to_a_third() -> None:
    late = vary(crops(), CropConfig(late_share=1.0), seeded())
    silent = (late == 0).sum(dim=1)
    assert silent.min() == 0
    assert silent.max() == 9
    torch.testing.assert_close(late[:, -1], crops()[:, 0])


def test_a_share_of_crops_hears_its_neighbour_softer() -> None:
    mixed = vary(crops(), CropConfig(mixed_share=0.25), seeded())
    louder = (mixed - crops())[:, 0] > 0
    assert 0.15 < louder.float().mean() < 0.35
    assert (mixed - crops())[louder].min() >= 0.1 * crops().min()


def test_no_varied_crop_is_louder_than_full_scale() -> None:
    loud = torch.full((50, 8), 0.9)
    varied = vary(loud, CropConfig(gain_db=(0.0, 6.0), mixed_share=1.0), seeded())
    assert varied.abs().max() <= 0.9901


def test_gains_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="expected the smaller one first"):
        CropConfig(gain_db=(3.0, -3.0))
