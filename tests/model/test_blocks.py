import pytest
import torch
from drawn import draw

from resonate_audio.model.blocks import (
    FrameConv,
    GatedMLP,
    ReadOnlyStream,
    SingleBlock,
    gated_mlp_width,
    initialise,
    modulate,
)
from resonate_audio.model.embeddings import rotary_angles

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("hidden", "width"), [(64, 256), (128, 512), (448, 1280), (512, 1536), (896, 2560)]
)
def test_gated_width_is_two_thirds_rounded_up_to_256(hidden: int, width: int) -> None:
    assert gated_mlp_width(hidden, 4.0) == width


def test_a_three_tap_box_sums_neighbours_and_sees_zeros_outside() -> None:
    conv = FrameConv(1, 1, 3, bias=False)
    torch.nn.init.ones_(conv.weight)
    out = conv(torch.tensor([[[1.0], [10.0], [100.0]]]))
    assert out.flatten().tolist() == [11.0, 111.0, 110.0]


def test_the_gated_mlp_follows_its_equation() -> None:
    mlp, x = GatedMLP(4, 4.0, kernel=1), draw(3, 4)
    gate, up, down = (layer.weight for layer in (mlp.gate, mlp.up, mlp.down))
    inner = x @ gate.T
    torch.testing.assert_close(mlp(x), (inner * inner.sigmoid() * (x @ up.T)) @ down.T)


def test_modulation_of_zero_is_plain_layer_norm() -> None:
    x, zero = 5 + 3 * draw(1, 4, 64), torch.zeros(1, 64)
    normed = modulate(x, zero, zero)
    torch.testing.assert_close(normed.mean(dim=-1), torch.zeros(1, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        normed.var(dim=-1, correction=0), torch.ones(1, 4), atol=1e-4, rtol=0
    )


def test_shift_and_scale_act_per_row() -> None:
    x = draw(1, 3, 8).expand(2, 3, 8)
    zero = torch.zeros(2, 8)
    scale, shift = torch.tensor([[0.0], [1.0]]).expand(2, 8), torch.tensor([[0.0], [5.0]])
    out = modulate(x, shift.expand(2, 8), scale)
    torch.testing.assert_close(out[1], 2 * modulate(x, zero, zero)[0] + 5)


def test_a_fresh_block_is_the_identity() -> None:
    block, x = SingleBlock(16, 2, 4.0, kernel=3), draw(2, 6, 16)
    initialise(block)
    assert torch.equal(block(x, draw(2, 16, seed=1), rotary_angles(6, 8, CPU)), x)


def test_a_read_only_stream_has_nothing_after_attention() -> None:
    names = {name.split(".")[0] for name, _ in ReadOnlyStream(16, 2).named_parameters()}
    assert names == {"modulation", "heads"}
