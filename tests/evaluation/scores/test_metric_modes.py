"""Each metric hears what its mode says, and gives what its judge gives of just that, in batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_aes import OLD_CODE, build_aes
from tiny_judges import BUILDERS, build_clap, make_llm, write_llm
from tiny_ms_clap import make_model, write_published

from resonate_audio.core.types import Waveform
from resonate_audio.evaluation.clips.folder import ClipLine, System, file_sha256, open_manifest
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, PromptSet
from resonate_audio.evaluation.scores.metrics import Metric, ask_per_event, open_metric
from resonate_audio.evaluation.scores.score import score_system
from resonate_audio.evaluation.scores.scored import Mode
from resonate_audio.evaluation.scores.sinc_resample import sinc_resample
from resonate_audio.evaluation.scores.store import Store
from resonate_audio.rewards.aesthetics import AXES, AestheticsReward
from resonate_audio.rewards.audio_llm.aqascore import AQAReward, LowAnswerMassWarning
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.clap.laion import CLAPReward
from resonate_audio.rewards.clap.microsoft import MSClapReward
from resonate_audio.rewards.clap.pam import PAMReward
from resonate_audio.rewards.desk import score_now

RATES_HZ = (44_100, 44_100, 16_000)
SECONDS = (10.25, 10.25, 3.0)
"""Two that are longer than what deterministic mode hears, and one of another rate."""
TEXTS = ("a dog barks while rain falls", "a dog", "rain falls")
EVENTS = (["a dog", "rain falls"], ["a dog"], ["rain", "falls", "a dog"])
MODES: tuple[Mode, ...] = ("deterministic", "paper")
Values = dict[str, list[float]]

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{LowAnswerMassWarning.__module__}.LowAnswerMassWarning"
)


def samples_of(number: int) -> torch.Tensor:
    """Noise that swells, so that another window is another sound."""
    length = round(SECONDS[number] * RATES_HZ[number])
    noise = torch.randn(1, length, generator=torch.Generator().manual_seed(number))
    return (0.3 * noise * torch.linspace(0.1, 1, length)).clamp(-1, 1)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("system")
    items = [
        PromptItem(id=f"{n}", prompt=text, meta={"event_list": EVENTS[n]})
        for n, text in enumerate(TEXTS)
    ]
    manifest = open_manifest(
        folder, System(name="made", source="here"), PromptSet("made", tuple(items))
    )
    lines = []
    for number, item in enumerate(items):
        path = folder / f"{number}.wav"
        soundfile.write(path, samples_of(number)[0].numpy(), RATES_HZ[number], subtype="FLOAT")
        sha256 = str(file_sha256(path))
        lines.append(ClipLine(id=item.id, prompt=item.prompt, file=path.name, sha256=sha256))
    manifest.append(lines)
    return folder


def measure(system: Path, metric: Metric) -> Values:
    """Columns of all clips, from a store that knows nothing."""
    place = system.parent / f"{system.name}.db"
    place.unlink(missing_ok=True)
    with Store(place) as store:
        scores = score_system(system, [metric], store)
    assert not [clip.failure for clip in scores.clips if clip.failure]
    return {card.name: [clip.values[card.name] for clip in scores.clips] for card in scores.cards}


def heard(number: int, mode: Mode, rate_hz: int) -> Waveform:
    """Ten seconds as they are, or all of it as torchaudio resamples."""
    samples = samples_of(number)
    if mode == "deterministic":
        return Waveform(samples[:, : 10 * RATES_HZ[number]], RATES_HZ[number])
    return Waveform(sinc_resample(samples, RATES_HZ[number], rate_hz), rate_hz)


def ask(judge: Reward, mode: Mode, rate_hz: int, part: str = "") -> list[float]:
    """What a judge says of each clip by itself."""
    found = []
    for number, text in enumerate(TEXTS):
        rewards = score_now(judge, heard(number, mode, rate_hz), [text])
        found.append(float(rewards.parts[part][0] if part else rewards.total[0]))
    return found


def check_all(
    system: Path, spec: str, mode: Mode, expected: Callable[[], Values], atol: float = 1e-6
) -> None:
    """The metric's columns are those of its judge, all together and one by one."""
    judged = expected()
    for batch_size in (1, 3):
        found = measure(system, open_metric(spec, mode, batch_size=batch_size))
        for name, values in judged.items():
            assert found[name] == pytest.approx(values, abs=atol), (name, batch_size)
            assert len(set(found[name])) == len(TEXTS), f"{name} tells no clip from another"


@pytest.mark.parametrize("mode", MODES)
def test_ms_clap_says_what_its_judge_says(system: Path, mode: Mode, tmp_path: Path) -> None:
    place = write_published(tmp_path)
    judge = MSClapReward(make_model(), mode)
    check_all(system, f"ms-clap:{place}", mode, lambda: {"ms-clap": ask(judge, mode, 44_100)})


@pytest.mark.parametrize("mode", MODES)
def test_pam_says_what_its_judge_says(system: Path, mode: Mode, tmp_path: Path) -> None:
    place = write_published(tmp_path)
    judge = PAMReward(make_model(), mode)
    check_all(system, f"pam:{place}", mode, lambda: {"pam": ask(judge, mode, 44_100)})


def test_pam_in_paper_mode_hears_seven_seconds_from_the_start(system: Path, tmp_path: Path) -> None:
    found = measure(system, open_metric(f"pam:{write_published(tmp_path)}", "paper"))["pam"]
    start = Waveform(samples_of(0)[:, : 7 * 44_100], 44_100)
    judged = score_now(PAMReward(make_model()), start, [TEXTS[0]]).total
    assert found[0] == pytest.approx(float(judged), abs=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_laion_clap_says_what_its_judge_says_and_has_no_paper_mode(
    system: Path, mode: Mode, tmp_path: Path
) -> None:
    model, processor = build_clap()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    judge = CLAPReward(model, processor, "tiny")
    check_all(
        system,
        f"laion-clap:{tmp_path}",
        mode,
        lambda: {"laion-clap": ask(judge, "deterministic", 48_000)},
    )
    assert open_metric(f"laion-clap:{tmp_path}", mode).columns[0].card.mode == "deterministic"


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def llm_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    write_llm(make_llm(request.param), folder)
    return request.param, folder


@pytest.mark.parametrize("mode", MODES)
def test_aqa_says_what_its_judge_says_to_the_question_of_its_mode(
    system: Path, mode: Mode, llm_folder: Any
) -> None:
    family, folder = llm_folder
    judge = AQAReward(make_llm(family, "official" if mode == "paper" else "paper"), "tiny")
    parts = {"aqa": "", "aqa-log-odds": "log_odds", "aqa-answer-mass": "answer_mass"}
    check_all(
        system,
        f"aqa:{folder}",
        mode,
        lambda: {name: ask(judge, mode, 16_000, part) for name, part in parts.items()},
        atol=1e-5,
    )
    question = open_metric(f"aqa:{folder}", mode).columns[0].card.details["question"]
    assert question.startswith("official" if mode == "paper" else "paper")


@pytest.mark.parametrize("mode", MODES)
def test_aqa_asked_per_event_is_the_mean_of_its_answers_and_the_share_heard(
    system: Path, mode: Mode, llm_folder: Any
) -> None:
    family, folder = llm_folder
    found = measure(system, ask_per_event(open_metric(f"aqa:{folder}", mode)))
    judge = AQAReward(make_llm(family, "official" if mode == "paper" else "paper"), "tiny")
    for number, events in enumerate(EVENTS):
        audio = heard(number, mode, 16_000)
        answers = np.array([float(score_now(judge, audio, [event]).total) for event in events])
        assert found["aqa-event-mean"][number] == pytest.approx(answers.mean(), abs=1e-5)
        assert found["aqa-event-share"][number] == pytest.approx((answers > 0.5).mean())


@pytest.mark.filterwarnings(*OLD_CODE)
@pytest.mark.parametrize("mode", MODES)
def test_aes_grades_every_window_in_paper_mode_and_ten_seconds_otherwise(
    system: Path, mode: Mode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_aes(monkeypatch).save_pretrained(tmp_path)
    judge = AestheticsReward.from_pretrained(str(tmp_path), mode=mode)
    check_all(
        system,
        f"aes:{tmp_path}",
        mode,
        lambda: {axis.lower(): ask(judge, mode, 16_000, axis) for axis in AXES},
        atol=1e-4,
    )


def test_modes_never_share_a_value(tmp_path: Path) -> None:
    place = write_published(tmp_path)
    for kind in ("ms-clap", "pam"):
        one, other = (open_metric(f"{kind}:{place}", mode) for mode in MODES)
        assert one.fingerprint != other.fingerprint
        assert [m.columns[0].card.mode for m in (one, other)] == list(MODES)
        assert other.columns[0].card.details["resampler"].startswith("windowed sinc to 44100 Hz")
