"""Our CLAP text tower beside transformers' own, on random weights."""

import pytest
import torch
from torch import Tensor

from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.checkpoint import load_strict
from resonate_audio.model.clap_text import ClapText, ClapTextConfig, rename_clap_text

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "projection_dim": 12,
}
IDS = torch.tensor([[0, 7, 9, 33, 2, 1, 1, 1], [0, 5, 2, 1, 1, 1, 1, 1], [0, 3, 4, 5, 6, 7, 8, 2]])
MASK = IDS != 1


@pytest.fixture(scope="module")
def published() -> tuple[dict[str, Tensor], Tensor]:
    """Random weights of transformers' classes, and what they make of the tokens."""
    from transformers import ClapTextConfig as TheirConfig
    from transformers import ClapTextModelWithProjection

    torch.manual_seed(0)
    theirs = ClapTextModelWithProjection(TheirConfig(**SIZES)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        made = theirs(input_ids=IDS, attention_mask=MASK.long()).text_embeds
    return dict(theirs.state_dict()), torch.nn.functional.normalize(made, dim=-1)


def as_laion(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names of LAION's file, with the other half beside them."""
    named = {}
    for name, value in state.items():
        name = name.replace("text_model.", "text_branch.")
        name = name.replace("text_projection.linear1", "text_projection.0")
        named[name.replace("text_projection.linear2", "text_projection.2")] = value
    return named | {"audio_branch.conv.weight": torch.ones(2), "logit_scale_a": torch.ones(())}


@pytest.mark.parametrize("is_laion", [False, True])
def test_it_embeds_as_the_published_classes_do(
    published: tuple[dict[str, Tensor], Tensor], is_laion: bool
) -> None:
    state, expected = published
    ours = ClapText(ClapTextConfig(**SIZES)).eval()
    load_strict(ours, rename_clap_text(as_laion(state) if is_laion else state), "test")
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS, MASK), expected, atol=1e-6, rtol=1e-5)


def test_what_is_missing_is_named(published: tuple[dict[str, Tensor], Tensor]) -> None:
    state = {k: v for k, v in published[0].items() if "pooler" not in k}
    with pytest.raises(CheckpointError, match=r"pooler\.weight is missing"):
        load_strict(ClapText(ClapTextConfig(**SIZES)), rename_clap_text(state), "test")


def test_padding_does_not_matter(published: tuple[dict[str, Tensor], Tensor]) -> None:
    ours = ClapText(ClapTextConfig(**SIZES)).eval()
    load_strict(ours, rename_clap_text(published[0]), "test")
    with torch.no_grad():
        short = ours(IDS[1:2, :3], MASK[1:2, :3])
        torch.testing.assert_close(short, ours(IDS[1:2], MASK[1:2]))
