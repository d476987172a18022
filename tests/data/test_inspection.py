from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from bells import RATE_HZ, bells

from resonate_audio.core.errors import CheckpointError
from resonate_audio.data.inspection import (
    CheckConfig,
    caption_problems,
    clipped_share,
    count_tokens,
    inspect_clip,
    loudest_db,
)
from resonate_audio.data.manifest import Clip

TOKENIZER = Path(str(files("resonate_audio.nano") / "weights/text_encoder/tokenizer.json"))


def make_clip(**fields: object) -> Clip:
    return Clip.model_validate({"audio_id": "a", "audio_path": "a.wav", "caption": "x"} | fields)


def kinds(samples: np.ndarray, rate_hz: int = RATE_HZ, **fields: object) -> list[str]:
    facts = inspect_clip(
        make_clip(**fields), samples.astype(np.float32), rate_hz, CheckConfig(min_s=1.0)
    )
    return [problem.kind for problem in facts.problems]


def caption_kinds(caption: str, **fields: object) -> list[str]:
    clip = make_clip(caption=caption, **fields)
    return [problem.kind for problem in caption_problems(clip, CheckConfig(tokenizer=TOKENIZER))]


def test_a_good_clip_has_no_problem() -> None:
    assert kinds(bells(0), duration=3.0) == []


def test_the_level_of_a_full_scale_sine_is_three_db_down() -> None:
    sine = np.sin(2 * np.pi * 100 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    assert loudest_db(sine, RATE_HZ) == pytest.approx(-3.01, abs=0.01)


def test_the_level_is_that_of_the_loudest_part() -> None:
    quiet = np.zeros(10 * RATE_HZ, dtype=np.float32)
    quiet[RATE_HZ : RATE_HZ + RATE_HZ // 10] = 0.5
    assert loudest_db(quiet, RATE_HZ) == pytest.approx(-6.02, abs=0.01)


def test_a_hiss_below_the_threshold_is_silence() -> None:
    assert kinds(1e-4 * bells(1)) == ["silent"]
    assert kinds(0.02 * bells(1)) == []


def test_flat_tops_are_counted_exactly() -> None:
    samples = np.zeros(1000, dtype=np.float32)
    samples[100:104], samples[200:202], samples[300:303] = 1.0, 1.0, -1.0
    assert clipped_share(samples) == pytest.approx(7 / 1000)


def test_an_overdriven_clip_is_clipped_and_a_loud_one_is_not() -> None:
    loud = bells(2) / np.abs(bells(2)).max()
    assert kinds(loud) == []
    assert kinds(np.clip(3 * loud, -1, 1)) == ["clipped"]


def test_a_lower_rate_is_a_problem_and_a_higher_one_is_not() -> None:
    assert kinds(bells(3, rate_hz=22_050), 22_050) == ["low-rate"]
    assert kinds(bells(3, rate_hz=48_000), 48_000) == []


def test_a_short_clip_is_told() -> None:
    assert kinds(bells(4, seconds=0.9)) == ["short"]


def test_a_duration_that_is_not_the_files_is_told() -> None:
    assert kinds(bells(5), duration=10.0) == ["duration"]
    assert kinds(bells(5), duration=3.4) == []


def test_a_clip_past_the_end_of_its_file_is_told() -> None:
    assert kinds(bells(6), start_frame=100, num_frames=3 * RATE_HZ) == ["outside"]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog barks", []),
        ("犬が吠える", []),
        ("ein Hündchen, 3 °C", []),
        (" ", ["caption-empty"]),
        ("...!", ["caption-marks"]),
        ("caf\u00c3\u00a9 noise", ["caption-encoding"]),
        ("it\u00e2\u20ac\u2122s raining", ["caption-encoding"]),
        ("caf\ufffd noise", ["caption-encoding"]),
        ("it\u0092s raining", ["caption-encoding"]),
        ("a dog barks " * 30, ["caption-long"]),
    ],
)
def test_captions_are_looked_at(caption: str, expected: list[str]) -> None:
    assert caption_kinds(caption) == expected


def test_other_captions_are_looked_at_too() -> None:
    assert caption_kinds("a dog", captions=["?", "a hound"]) == ["caption-marks"]


def test_tokens_are_counted_beyond_what_the_encoder_takes() -> None:
    assert count_tokens(TOKENIZER, "dog " * 500) == 502


def test_a_file_that_is_no_tokenizer_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
        count_tokens(tmp_path / "tokenizer.json", "a dog")
