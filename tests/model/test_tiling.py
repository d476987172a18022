import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from resonate_audio.core.errors import InputError
from resonate_audio.model.tiling import run_tiled


def repeat_mean_of_five(x: Tensor) -> Tensor:
    """Reach of two positions, two outputs for each."""
    mean = F.avg_pool1d(F.pad(x, (2, 2)), 5, stride=1)
    return mean.repeat_interleave(2, dim=-1)


@pytest.mark.parametrize("tile", [1, 3, 8, 50])
def test_tiles_give_the_result_of_one_pass(tile: int) -> None:
    x = torch.randn(2, 3, 29, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        run_tiled(repeat_mean_of_five, x, tile, 2, 2), repeat_mean_of_five(x)
    )


def test_a_halo_too_short_is_seen_in_the_result() -> None:
    x = torch.randn(1, 1, 29, generator=torch.Generator().manual_seed(0))
    wrong = run_tiled(repeat_mean_of_five, x, 4, 1, 2)
    assert (wrong - repeat_mean_of_five(x)).abs().max() > 1e-2


def test_no_call_sees_more_than_a_tile_and_its_halos() -> None:
    lengths = []

    def network(x: Tensor) -> Tensor:
        lengths.append(x.shape[-1])
        return x

    run_tiled(network, torch.zeros(1, 1, 100), tile=10, halo=3, outputs_per_position=1)
    assert max(lengths) == 16


def test_an_empty_tile_is_refused() -> None:
    with pytest.raises(InputError, match="tile of 0"):
        run_tiled(repeat_mean_of_five, torch.zeros(1, 1, 4), 0, 2, 2)
