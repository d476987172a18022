from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resonate_audio.audio.mel import MEL_16K, MelFrontEnd
from resonate_audio.core.errors import ConfigError
from resonate_audio.core.types import TextFeatures
from resonate_audio.data.latent_cache import (
    all_captions,
    cached_captions,
    cached_latents,
    make_latent_set,
    pad_lists,
    place_clips,
    window_frames,
)
from resonate_audio.data.manifest import Clip
from resonate_audio.data.waveforms import WaveformSet
from resonate_audio.model.vae import MelVAE, VAEConfig

FRAME = 512


class LengthEncoder:
    """Says of each text how long it is, and nothing else."""

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        sizes = torch.tensor([[float(len(text) + 1)] for text in texts])
        return TextFeatures(sizes[:, None, :].repeat(1, 2, 1), sizes)


def make_vae(seed: int) -> MelVAE:
    config = VAEConfig(num_bands=80, latent_channels=2, hidden=4)
    return MelVAE(config, torch.Generator().manual_seed(seed)).eval()


def make_waves() -> WaveformSet:
    """Clips of 4,000, 9,000 and 30,000 samples of noise."""
    lengths = np.array([4_000, 9_000, 30_000])
    samples = np.random.default_rng(0).integers(-9999, 9999, lengths.sum()).astype(np.int16)
    names = (("a", ("b",)), ("b", ()), ("c", ("a", "d")))
    clips = tuple(
        Clip(audio_id=str(i), audio_path="x", caption=caption, captions=others)
        for i, (caption, others) in enumerate(names)
    )
    starts = np.cumsum(lengths) - lengths
    return WaveformSet(samples, starts, lengths, clips, (), 16_000, "test")


def encode(folder: Path, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    mel = MelFrontEnd(MEL_16K)
    return cached_latents(make_waves(), make_vae(seed), mel, (0.5, 1.0), folder, lambda _: None)


def test_windows_are_rounded_up_to_whole_frames() -> None:
    assert window_frames((1.0, 0.5, 0.5), FRAME, 16_000) == [16, 32]


def test_no_window_is_an_error() -> None:
    with pytest.raises(ConfigError, match="window_s is empty"):
        window_frames((), FRAME, 16_000)


def test_a_clip_goes_into_the_shortest_window_that_holds_it() -> None:
    placed = place_clips([5, 10, 11, 20], [10, 20])
    assert [[piece.clip for piece in window] for window in placed] == [[0, 1], [2, 3]]


@given(st.integers(1, 500), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_a_long_clip_is_covered_from_beginning_to_end(length: int, window: int) -> None:
    (found,) = place_clips([length], [window])
    heard = np.zeros(length, dtype=bool)
    for piece in found:
        assert piece.start + piece.num_samples <= length
        heard[piece.start : piece.start + piece.num_samples] = True
    assert heard.all()


def test_a_short_clip_is_encoded_with_the_silence_after_it(tmp_path: Path) -> None:
    waves, vae, mel = make_waves(), make_vae(0), MelFrontEnd(MEL_16K)
    table = encode(tmp_path)[0]
    with torch.no_grad():
        expected = vae.encode(mel(waves.wave(0, 0, 16 * FRAME)[None]))
    torch.testing.assert_close(table["mean"][0].float(), expected.mean[0], atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(table["std"][0].float(), expected.std[0], atol=2e-3, rtol=2e-3)
    assert table["num_real_frames"].tolist() == [8]


def test_an_encoded_cache_is_used_again(tmp_path: Path) -> None:
    first = encode(tmp_path, seed=0)
    again = encode(tmp_path, seed=1)  # other weights: encoding anew would give other numbers
    assert all(torch.equal(a["mean"], b["mean"]) for a, b in zip(first, again, strict=True))


def test_every_piece_knows_its_own_captions(tmp_path: Path) -> None:
    waves = make_waves()
    texts = all_captions(waves)
    table = cached_captions(texts, LengthEncoder(), tmp_path / "text", 2, lambda _: None)
    data = make_latent_set(encode(tmp_path / "latents"), waves, table)
    long = data.buckets[1]
    found = {
        tuple(texts[number] for number in row[:count].tolist())
        for row, count in zip(long.captions, long.num_captions.tolist(), strict=True)
    }
    assert found == {("b",), ("c", "a", "d")}
    assert data.num_clips == 4


def test_captions_are_listed_once_after_the_empty_prompt() -> None:
    assert all_captions(make_waves()) == ["", "a", "b", "c", "d"]


def test_captions_keep_their_order_though_similar_lengths_are_encoded_together(
    tmp_path: Path,
) -> None:
    texts = ["", *("x" * (50 - i) for i in range(50))]
    for _ in range(2):
        table = cached_captions(texts, LengthEncoder(), tmp_path, 2, lambda _: None)
        got = table.features(torch.arange(len(texts)))
        expected = LengthEncoder().encode(texts)
        assert torch.equal(got.tokens, expected.tokens)
        assert torch.equal(got.pooled, expected.pooled)


def test_lists_of_unequal_length_become_a_table_and_counts() -> None:
    table, counts = pad_lists([[1], [2, 3]])
    assert table.tolist() == [[1, 0], [2, 3]]
    assert counts.tolist() == [1, 2]
