from __future__ import annotations

import pytest

from resonate_audio.core.errors import ModelNotFoundError
from resonate_audio.model.hub import find_model
from resonate_audio.model.published.names import PUBLISHED, published_model


@pytest.mark.parametrize(
    ("name", "checkpoint"),
    [
        ("resonate", "AndreasXi/Resonate/Resonate_GRPO.pth"),
        ("resonate-pt", "AndreasXi/Resonate/Resonate_PT.pth"),
        ("AndreasXi/Resonate", "AndreasXi/Resonate/Resonate_GRPO.pth"),
        ("andreasxi/resonate", "AndreasXi/Resonate/Resonate_GRPO.pth"),
        ("AndreasXi/Resonate:Resonate_PT.pth", "AndreasXi/Resonate/Resonate_PT.pth"),
        ("AndreasXi/Resonate:another.pth", "AndreasXi/Resonate/another.pth"),
        ("meanaudio-s", "AndreasXi/MeanAudio/meanaudio_s_full.pth"),
        ("meanaudio-s-ac", "AndreasXi/MeanAudio/meanaudio_s_ac.pth"),
        ("meanaudio-l", "AndreasXi/MeanAudio/meanaudio_l_full.pth"),
        ("fluxaudio-s", "AndreasXi/MeanAudio/fluxaudio_s_full.pth"),
        ("AndreasXi/MeanAudio", "AndreasXi/MeanAudio/meanaudio_s_full.pth"),
        ("AndreasXi/MeanAudio:fluxaudio_s_full.pth", "AndreasXi/MeanAudio/fluxaudio_s_full.pth"),
    ],
)
def test_a_name_or_hub_id_means_a_checkpoint(name: str, checkpoint: str) -> None:
    model = published_model(name)
    assert model is not None
    assert f"{model.flow.repo_id}/{model.flow.name}" == checkpoint


def test_a_hub_id_with_the_file_of_a_name_is_that_name() -> None:
    assert published_model("AndreasXi/Resonate:Resonate_PT.pth") == published_model("resonate-pt")


@pytest.mark.parametrize("name", ["nano", "Resonate_PT.pth", "somebody/else", "a/b:c.pth", ""])
def test_other_names_are_not_published_ones(name: str) -> None:
    assert published_model(name) is None


def test_every_model_is_three_networks_and_the_encoders_of_its_family() -> None:
    for model in PUBLISHED:
        assert model.of_part("network") == model.files[:3], model.name
        assert len(model.of_part("text_encoder")) == 3
        has_pooled = model.family.text_encoder.pooled is not None
        assert bool(model.of_part("clap")) == bool(model.of_part("clap_tokenizer")) == has_pooled


def test_an_unknown_name_gets_the_three_closest() -> None:
    with pytest.raises(ModelNotFoundError, match=r"closest names: resonate-pt, resonate, \w"):
        find_model("resonate-tp")
