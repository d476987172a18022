from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_ms_clap import make_model, make_state, make_tokenizer, write_published

from resonate_audio.core.errors import CheckpointError, ModelNotFoundError, RewardError
from resonate_audio.core.types import Waveform
from resonate_audio.model.checkpoint import write_weights
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.catalogue import open_reward
from resonate_audio.rewards.clap.microsoft import (
    WINDOW_SAMPLES,
    MSClapModel,
    MSClapReward,
    choose_windows,
    tokenize,
)
from resonate_audio.rewards.clap.microsoft_network import LogMel, build_ms_clap, rename_keys
from resonate_audio.rewards.desk import score_now

RATE_HZ = 44_100
TEXTS = ["a dog barks", "rain falls! while a car horn!", "a horn"]


def sounds(seconds: float = 10.0, rate_hz: int = RATE_HZ) -> Waveform:
    time_s = torch.arange(int(seconds * rate_hz)) / rate_hz
    pitch = torch.tensor([300.0, 1200.0, 4000.0])[:, None]
    sweep = torch.sin(2 * torch.pi * pitch * time_s * (1 + time_s / 20))
    noise = torch.randn(sweep.shape, generator=torch.Generator().manual_seed(0))
    return Waveform(0.3 * sweep + 0.03 * noise, rate_hz)


@pytest.fixture(scope="module")
def model() -> MSClapModel:
    return make_model()


@pytest.fixture
def judge(model: MSClapModel) -> MSClapReward:
    return MSClapReward(model)


def test_it_is_a_reward(judge: MSClapReward) -> None:
    assert isinstance(judge, Reward)


def test_the_score_is_the_cosine_of_the_networks_own_vectors(model: MSClapModel) -> None:
    audio = sounds(7.0)
    tokens, last = tokenize(model.tokenizer, TEXTS, "deterministic")
    with torch.no_grad():
        heard = model.network.embed_windows(audio.samples)
        read = model.network.embed_tokens(tokens, last)
    expected = (heard * read).sum(dim=1).double()
    found = score_now(MSClapReward(model), audio, TEXTS).total
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["deterministic", "paper"])
def test_a_batch_scores_as_its_rows_do_one_by_one(mode: Any, model: MSClapModel) -> None:
    judge, audio = MSClapReward(model, mode), sounds()
    alone = [
        score_now(judge, Waveform(audio.samples[row, None], RATE_HZ), [text]).total
        for row, text in enumerate(TEXTS)
    ]
    together = score_now(judge, audio, TEXTS).total
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)


def test_sound_and_text_both_move_the_score(judge: MSClapReward) -> None:
    assert score_now(judge, sounds(7.0), ["a dog"] * 3).total.std() > 1e-3
    same = Waveform(sounds(7.0).samples[:1].repeat(3, 1), RATE_HZ)
    assert score_now(judge, same, TEXTS).total.std() > 1e-3


def test_modes_go_by_different_names(model: MSClapModel) -> None:
    names = [score_now(MSClapReward(model, mode), sounds(1), TEXTS).judge for mode in MODES]
    assert names[0].startswith("ms-clap[tiny@")
    assert "at random" in names[1]


MODES: tuple[Any, ...] = ("deterministic", "paper")


class TestWindows:
    ramp = torch.arange(10 * RATE_HZ).float()[None]

    def test_ten_seconds_are_heard_whole_in_two_windows(self) -> None:
        windows = choose_windows(self.ramp, "deterministic")[0]
        assert windows[:, 0].tolist() == [0, 3 * RATE_HZ]
        assert windows[:, -1].tolist() == [7 * RATE_HZ - 1, 10 * RATE_HZ - 1]

    def test_two_whole_windows_do_not_overlap(self) -> None:
        windows = choose_windows(torch.arange(2 * WINDOW_SAMPLES).float()[None], "deterministic")
        assert windows[0, :, 0].tolist() == [0, WINDOW_SAMPLES]

    @pytest.mark.parametrize("mode", MODES)
    def test_a_short_sound_is_repeated(self, mode: Any) -> None:
        windows = choose_windows(torch.arange(3 * RATE_HZ).float()[None], mode)
        assert windows.shape == (1, 1, WINDOW_SAMPLES)
        assert windows[0, 0, [0, 3 * RATE_HZ, -1]].tolist() == [0, 0, RATE_HZ - 1]

    def test_papers_crop_lies_inside_and_depends_on_the_sound_alone(self) -> None:
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(4, 8 * RATE_HZ, generator=generator)
        together = choose_windows(rows, "paper")
        alone = torch.cat([choose_windows(row[None], "paper") for row in rows])
        assert torch.equal(together, alone)
        starts = [
            (row == crop[0, 0]).nonzero()[0].item()
            for row, crop in zip(rows, together, strict=True)
        ]
        assert len(set(starts)) == 4


class TestTexts:
    def test_the_end_mark_stands_for_a_text(self) -> None:
        tokens, last = tokenize(make_tokenizer(), TEXTS, "deterministic")
        end = make_tokenizer().convert_tokens_to_ids("<|endoftext|>")
        assert tokens[torch.arange(3), last].tolist() == [end] * 3

    def test_exclamation_marks_move_the_published_place(self) -> None:
        _, ours = tokenize(make_tokenizer(), TEXTS, "deterministic")
        _, theirs = tokenize(make_tokenizer(), TEXTS, "paper")
        assert (ours - theirs).tolist() == [0, 2, 0]

    def test_a_long_text_keeps_its_end_in_one_mode_only(self) -> None:
        long, end = ["dog " * 200], make_tokenizer().convert_tokens_to_ids("<|endoftext|>")
        tokens, last = tokenize(make_tokenizer(), long, "deterministic")
        assert tokens.shape == (1, 77)
        assert tokens[0, last[0]] == end
        assert end not in tokenize(make_tokenizer(), long, "paper")[0]

    def test_what_follows_the_end_is_not_read(self, model: MSClapModel) -> None:
        together = model.embed_texts(TEXTS, "paper")
        alone = torch.cat([model.embed_texts([text], "paper") for text in TEXTS])
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


class TestMel:
    """The front end against the same sums written out in float64."""

    def test_log_mel_is_ten_log_of_filtered_power(self) -> None:
        state = make_state()
        front = build_ms_clap(state, "tiny").mel
        samples = sounds(0.2).samples[:2]
        filters = front.filters.double().numpy()
        expected = np.stack([closed_mel(row.double().numpy(), filters) for row in samples])
        np.testing.assert_allclose(front(samples).numpy(), expected, atol=2e-3)

    def test_silence_lies_at_the_floor(self) -> None:
        front = LogMel(513, 64)
        assert torch.equal(front(torch.zeros(1, 3200)), torch.full((1, 11, 64), -100.0))

    def test_seven_seconds_are_965_frames(self) -> None:
        assert LogMel(513, 64)(torch.zeros(1, WINDOW_SAMPLES)).shape == (1, 965, 64)


def closed_mel(samples: np.ndarray, filters: np.ndarray) -> np.ndarray:
    size = 1024
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    padded = np.pad(samples, size // 2, mode="reflect")
    frames = [padded[i : i + size] * window for i in range(0, len(samples) + 1, 320)]
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    return np.asarray(10 * np.log10(np.maximum(power @ filters, 1e-10)))


class TestLoading:
    def test_both_judges_open_by_their_names(self, tmp_path: Path) -> None:
        write_published(tmp_path)
        judges = open_reward(f"ms-clap:{tmp_path}#mode=paper,pam:{tmp_path}")
        given = score_now(judges, sounds(1.0), TEXTS)
        assert sorted(given.parts) == ["ms-clap", "pam"]

    def test_the_published_form_scores_as_the_network_it_was_made_from(
        self, model: MSClapModel, tmp_path: Path
    ) -> None:
        write_published(tmp_path)
        loaded = MSClapReward.from_pretrained(str(tmp_path))
        found = score_now(loaded, sounds(7.0), TEXTS).total
        assert torch.equal(found, score_now(MSClapReward(model), sounds(7.0), TEXTS).total)
        assert loaded.model.fingerprint == model.fingerprint

    def test_a_conversion_to_safetensors_is_the_same_judge(self, tmp_path: Path) -> None:
        write_published(tmp_path).unlink()
        path = tmp_path / "CLAP_weights_2023.safetensors"
        write_weights(path, make_state(), {})
        assert MSClapModel.from_pretrained(str(path)).fingerprint == make_model().fingerprint

    def test_a_missing_key_is_named(self) -> None:
        state = make_state()
        del state["audio_encoder.base.htsat.layers.1.blocks.0.mlp.fc2.bias"]
        with pytest.raises(
            CheckpointError, match=r"layers\.1\.blocks\.0\.output\.dense\.bias is mis"
        ):
            build_ms_clap(state, "file")

    def test_an_unknown_key_is_named(self) -> None:
        state = make_state() | {"audio_encoder.base.htsat.extra.weight": torch.ones(3)}
        with pytest.raises(CheckpointError, match=r"extra\.weight is not a weight"):
            build_ms_clap(state, "file")

    def test_another_fourier_transform_is_refused(self) -> None:
        state = make_state()
        state["audio_encoder.base.htsat.spectrogram_extractor.stft.conv_imag.weight"].neg_()
        with pytest.raises(CheckpointError, match=r"conv_imag\.weight is no Fourier transform"):
            build_ms_clap(state, "file")

    def test_another_kind_of_file_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match=r"melW is missing \(1 tensors found\)"):
            build_ms_clap({"weight": torch.ones(2)}, "file")

    def test_joint_attention_weights_are_taken_apart_in_order(self) -> None:
        state = make_state()
        joint = state["audio_encoder.base.htsat.layers.0.blocks.1.attn.qkv.weight"]
        ours = rename_keys(state)
        prefix = "hear.layers.0.blocks.1.attention.self."
        parts = [ours[f"{prefix}{name}.weight"] for name in ("query", "key", "value")]
        assert torch.equal(torch.cat(parts), joint)

    def test_a_folder_without_weights_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"holds none of CLAP_weights_2023"):
            MSClapModel.from_pretrained(str(tmp_path))

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFoundError, match=r"absent\.pth: no such weights"):
            MSClapModel.from_pretrained(str(tmp_path / "absent.pth"))


def test_broken_sounds_are_an_error(judge: MSClapReward) -> None:
    audio = sounds(1.0)
    audio.samples[1, 3] = math.nan
    with pytest.raises(RewardError, match="row 2"):
        score_now(judge, audio, TEXTS)
