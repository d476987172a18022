"""Listeners: rows as their networks give them, in the order of files; values of sets from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_judges import build_clap
from tiny_ms_clap import make_model
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from resonate_audio.core.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    ManifestError,
    ModelNotFoundError,
    RewardError,
)
from resonate_audio.core.types import Waveform
from resonate_audio.evaluation.distances.embeddings import (
    ClapHearing,
    FunctionHearing,
    Listener,
    MSClapHearing,
    hear_files,
    open_classifier,
    open_embedder,
)
from resonate_audio.evaluation.distances.formulas import (
    frechet_audio_distance,
    inception_score,
    kernel_audio_distance,
    paired_kl,
    softmax,
    unbiased_fad,
)
from resonate_audio.evaluation.distances.set_values import (
    add_distances,
    add_inception,
    add_paired_kl,
    hear_reference,
    hear_system,
    prompts_of,
)
from resonate_audio.evaluation.scores.scored import ClipScore, MetricCard, SystemScores
from resonate_audio.rewards.clap.laion import CLAPReward

RATE_HZ = 16_000


def moments(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Three numbers a sound, in closed form."""
    crossings = np.abs(np.diff(np.sign(samples), axis=1)).mean(axis=1)
    return np.stack([samples.mean(axis=1), samples.std(axis=1), crossings], axis=1)


def one_number(samples: np.ndarray, sample_rate_hz: int) -> float:
    return 1.0


def failing(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    raise KeyError("dog")


def not_finite(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    return np.full((len(samples), 2), np.nan)


NOT_CALLABLE = 3
MOMENTS = Listener("moments", "embedding", FunctionHearing(moments, "here:moments"))
CLASSES = Listener("moments", "classes", FunctionHearing(moments, "here:moments"))


def sounds(rows: int = 3, seconds: float = 0.5, rate_hz: int = RATE_HZ) -> Waveform:
    time_s = torch.arange(round(seconds * rate_hz)) / rate_hz
    pitch = 300.0 * 1.7 ** torch.arange(rows)[:, None]
    return Waveform(0.3 * torch.sin(2 * torch.pi * pitch * time_s), rate_hz)


def write_sounds(folder: Path, num_sounds: int = 20, seed: int = 0, level: float = 0.2) -> None:
    import soundfile

    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    for number in range(num_sounds):
        samples = level * (0.5 + draw.random()) * draw.normal(size=2000 + 400 * (number % 2))
        soundfile.write(folder / f"{number:04d}.wav", samples, RATE_HZ, subtype="FLOAT")


def scores_of(num_clips: int = 20, failed: tuple[int, ...] = ()) -> SystemScores:
    clips = tuple(
        ClipScore(
            id=f"{number:04d}",
            prompt=f"sound {number}",
            file=f"{number:04d}.wav",
            failure="silent" if number in failed else None,
        )
        for number in range(num_clips)
    )
    return SystemScores(system="made", clips=clips)


@pytest.fixture(scope="module")
def ast_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ast")
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_mel_bins=32,
        max_length=64,
        id2label=dict(enumerate("abcd")),
        label2id={name: number for number, name in enumerate("abcd")},
    )
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clap() -> ClapHearing:
    return ClapHearing(CLAPReward(*build_clap(), "tiny"))


def test_nano_clap_gives_unit_vectors() -> None:
    rows = open_embedder("nano-clap").hear(sounds())
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_clap_gives_the_models_own_vectors(clap: ClapHearing) -> None:
    audio = sounds(rate_hz=48_000)
    model: Any = clap.judge.model
    heard = clap.judge.processor.feature_extractor(
        list(audio.samples.numpy()), sampling_rate=48_000, return_tensors="pt"
    )
    with torch.no_grad():
        given = model.get_audio_features(
            heard["input_features"].float(), is_longer=torch.zeros(3, 1, dtype=torch.bool)
        ).pooler_output
    expected = torch.nn.functional.normalize(given, dim=1).numpy()
    np.testing.assert_allclose(clap(audio), expected, atol=1e-6)


def test_clap_hears_rows_one_by_one_as_it_hears_a_batch(clap: ClapHearing) -> None:
    audio = sounds()
    single = [clap(Waveform(row[None], RATE_HZ))[0] for row in audio.samples]
    np.testing.assert_allclose(clap(audio), np.stack(single), atol=1e-5)


def test_ms_clap_gives_unit_vectors() -> None:
    rows = MSClapHearing(make_model())(sounds(seconds=1.0))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_classifier_gives_the_models_own_logits(ast_folder: Path) -> None:
    listener = open_classifier(f"ast:{ast_folder}")
    audio = sounds()
    model = ASTForAudioClassification.from_pretrained(ast_folder).eval()
    extractor = ASTFeatureExtractor.from_pretrained(ast_folder)
    given = extractor(list(audio.samples.numpy()), sampling_rate=RATE_HZ, return_tensors="pt")
    with torch.no_grad():
        expected = model(**given).logits.numpy()
    np.testing.assert_allclose(listener.hear(audio), expected, atol=1e-5)
    assert listener.labels == ("a", "b", "c", "d")


def test_a_classifier_without_its_weights_is_refused(ast_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((ast_folder / name).read_bytes())
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        open_classifier(f"ast:{tmp_path}")


def test_a_classifier_that_is_nowhere_is_refused() -> None:
    with pytest.raises(ModelNotFoundError, match="no such judge"):
        open_classifier("ast:./nowhere/at/all")


def test_a_function_is_found_by_its_place() -> None:
    listener = open_embedder("test_set_embeddings:moments")
    np.testing.assert_array_equal(
        listener.hear(sounds()), moments(sounds().samples.numpy(), RATE_HZ)
    )
    assert listener.name == "test_set_embeddings:moments"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dog", "there is no such embedder; there are nano-clap, laion-clap, ms-clap"),
        ("no_such_module:dog", "cannot import no_such_module"),
        ("test_set_embeddings:dog", "has no function or embedder called dog"),
        ("test_set_embeddings:NOT_CALLABLE", "is no function"),
    ],
)
def test_what_cannot_listen_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_embedder(text)


@pytest.mark.parametrize(
    ("function", "said"),
    [(one_number, r"shape \(\) for 3 sounds"), (failing, "KeyError: 'dog'")],
)
def test_a_function_that_gives_no_rows_is_told(function: Any, said: str) -> None:
    with pytest.raises(RewardError, match=said):
        FunctionHearing(function, "here")(sounds())


def test_a_fingerprint_changes_with_the_weights(ast_folder: Path, tmp_path: Path) -> None:
    listener = open_classifier(f"ast:{ast_folder}")
    hearing: Any = listener.hear
    before = listener.fingerprint
    assert open_classifier(f"ast:{ast_folder}").fingerprint == before
    with torch.no_grad():
        next(hearing.model.parameters()).add_(1.0)
    assert Listener("ast", "classes", hearing).fingerprint != before


def test_rows_come_in_the_order_of_files(tmp_path: Path) -> None:
    write_sounds(tmp_path / "a", 7)
    paths = sorted((tmp_path / "a").iterdir())
    together = hear_files(MOMENTS, paths, batch_size=2)
    single = [hear_files(MOMENTS, [path])[0] for path in paths]
    np.testing.assert_allclose(together, np.stack(single))


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    write_sounds(tmp_path / "a", 2)
    broken = Listener("broken", "embedding", FunctionHearing(not_finite, "here"))
    with pytest.raises(RewardError, match=r"NaN or infinite values for .*0000\.wav"):
        hear_files(broken, sorted((tmp_path / "a").iterdir()))


def test_failed_clips_are_left_out_and_named(tmp_path: Path) -> None:
    write_sounds(tmp_path / "a", 20)
    heard = hear_system(tmp_path / "a", scores_of(20, failed=(3, 5)), MOMENTS)
    assert len(heard.rows) == 18
    assert heard.left_out == ("0003, seed 0 (silent)", "0005, seed 0 (silent)")


def test_a_system_of_failures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no clip of made can be heard"):
        hear_system(tmp_path, scores_of(2, failed=(0, 1)), MOMENTS)


def test_a_silent_reference_is_left_out_and_named(tmp_path: Path) -> None:
    import soundfile

    write_sounds(tmp_path / "real", 4)
    soundfile.write(tmp_path / "real" / "zero.wav", np.zeros(4000), RATE_HZ)
    reference = hear_reference(tmp_path / "real", MOMENTS)
    assert reference.heard.left_out == ("zero.wav (silent)",)
    assert len(reference.heard.rows) == 4


def test_an_empty_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="none of its 0 sounds can be heard"):
        hear_reference(tmp_path, MOMENTS)


def test_distances_are_those_of_the_rows(tmp_path: Path) -> None:
    write_sounds(tmp_path / "real", 30, seed=1)
    write_sounds(tmp_path / "made", 20, seed=2, level=0.3)
    reference = hear_reference(tmp_path / "real", MOMENTS)
    heard = hear_system(tmp_path / "made", scores_of(20), MOMENTS)
    found = add_distances(scores_of(20), heard, reference, MOMENTS)
    real, made = reference.heard.rows, heard.rows
    assert found.scores.set_values == {
        "fad/moments": frechet_audio_distance(real, made),
        "kad/moments": kernel_audio_distance(real, made),
        "fad-inf/moments": unbiased_fad(real, made).value,
    }
    assert all(not card.higher_is_better for card in found.scores.cards)


def test_few_clips_are_not_extrapolated(tmp_path: Path) -> None:
    write_sounds(tmp_path / "real", 6)
    heard = hear_system(tmp_path / "real", scores_of(6), MOMENTS)
    reference = hear_reference(tmp_path / "real", MOMENTS)
    found = add_distances(scores_of(6), heard, reference, MOMENTS)
    assert found.fad_inf is None
    assert set(found.scores.set_values) == {"fad/moments", "kad/moments"}
    assert found.scores.set_values["fad/moments"] == pytest.approx(0, abs=1e-9)


def test_another_reference_is_another_fingerprint(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        write_sounds(tmp_path / name, 6, seed)
    heard = hear_system(tmp_path / "one", scores_of(6), MOMENTS)
    cards = [
        add_distances(scores_of(6), heard, hear_reference(tmp_path / name, MOMENTS), MOMENTS)
        .scores.cards[0]
        .fingerprint
        for name in ("one", "two", "one")
    ]
    assert cards[0] == cards[2] != cards[1]


def test_new_columns_take_the_place_of_old_ones(tmp_path: Path) -> None:
    write_sounds(tmp_path / "real", 6)
    old = (
        MetricCard(name="clap", fingerprint="1"),
        MetricCard(name="fad/moments", fingerprint="1"),
    )
    scores = scores_of(6).model_copy(update={"cards": old, "set_values": {"fad/moments": 9.0}})
    heard = hear_system(tmp_path / "real", scores, MOMENTS)
    found = add_distances(scores, heard, hear_reference(tmp_path / "real", MOMENTS), MOMENTS)
    names = [card.name for card in found.scores.cards]
    assert names == ["clap", "fad/moments", "kad/moments"]
    assert found.scores.set_values["fad/moments"] == pytest.approx(0, abs=1e-9)


def test_the_inception_score_is_of_the_rows(tmp_path: Path) -> None:
    write_sounds(tmp_path / "made", 30)
    heard = hear_system(tmp_path / "made", scores_of(30), CLASSES)
    found = add_inception(scores_of(30), heard, CLASSES).scores
    assert found.set_values == {"is/moments": inception_score(softmax(heard.rows))[0]}
    assert found.cards[0].higher_is_better


def test_kl_is_a_column_of_clips(tmp_path: Path) -> None:
    write_sounds(tmp_path / "real", 6, seed=1)
    write_sounds(tmp_path / "made", 6, seed=2)
    scores = scores_of(6, failed=(2,))
    heard = hear_system(tmp_path / "made", scores, CLASSES)
    reference = hear_reference(tmp_path / "real", CLASSES, prompts_of(scores))
    found = add_paired_kl(scores, heard, reference, CLASSES).scores
    kept = [0, 1, 3, 4, 5]
    real = [hear_files(CLASSES, [tmp_path / "real" / f"{k:04d}.wav"])[0] for k in kept]
    expected = paired_kl(np.stack(real), heard.rows)
    values = found.values("kl-softmax/moments")
    assert values[2] is None
    np.testing.assert_allclose([values[k] for k in kept], expected, atol=1e-12)
    assert {card.name for card in found.cards} == {"kl-softmax/moments", "kl-sigmoid/moments"}


def test_a_prompt_without_a_recording_is_named(tmp_path: Path) -> None:
    write_sounds(tmp_path / "real", 4)
    write_sounds(tmp_path / "made", 6)
    heard = hear_system(tmp_path / "made", scores_of(6), CLASSES)
    reference = hear_reference(tmp_path / "real", CLASSES, prompts_of(scores_of(6)))
    with pytest.raises(InputError, match=r"no recording of prompt 0004 \(2 such\)"):
        add_paired_kl(scores_of(6), heard, reference, CLASSES)


def test_an_embedder_tells_no_classes(tmp_path: Path) -> None:
    write_sounds(tmp_path / "made", 4)
    heard = hear_system(tmp_path / "made", scores_of(4), MOMENTS)
    with pytest.raises(InputError, match="gives embedding, and this needs classes"):
        add_inception(scores_of(4), heard, MOMENTS)
