"""TTA-Bench's files are read as they are, and its formulas give what closed forms say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.evaluation.scores.scored import SystemScores
from resonate_audio.evaluation.tta_bench.dimensions import (
    attribute_grid,
    bias_shares,
    efficiency,
    fairness,
    robustness,
    toxicity_rates,
    unscored,
)
from resonate_audio.evaluation.tta_bench.prompts import PERTURBATIONS, TTABenchSet, read_tta_bench
from tests.evaluation.made_scores import system

FILES = Path(__file__).parents[3] / "shared" / "data" / "ttabench"


def bench(folder: Path, lines: list[Mapping[str, Any]]) -> TTABenchSet:
    path = folder / "made.json"
    path.write_text(json.dumps(lines))
    return read_tta_bench(path)


def accuracy(number: int, count: int, relation: str) -> dict[str, Any]:
    return {
        "id": f"prompt_{number:04d}",
        "prompt_text": f"sound {number}",
        "Dimensions of evaluation": "Accuracy",
        "event_count": count,
        "event_list": ["event"] * count,
        "event_relation": relation,
        "source": "manual",
    }


def test_means_by_count_and_relation(tmp_path: Path) -> None:
    made = bench(
        tmp_path,
        [
            accuracy(1, 1, "None"),
            accuracy(2, 2, "sequence"),
            accuracy(3, 2, "parallelism"),
            accuracy(4, 3, "sequence"),
        ],
    )
    values = {"prompt_0001": 1.0, "prompt_0002": 2.0, "prompt_0003": 4.0, "prompt_0004": 6.0}
    grid = attribute_grid(system("s", values), made, "clap")
    assert grid.overall.value == pytest.approx(13 / 4)
    assert {c.group: c.mean.value for c in grid.by_count} == {"1": 1.0, "2": 3.0, "3": 6.0}
    relations = {c.group: c.mean.value for c in grid.by_relation}
    assert relations == {"single": 1.0, "sequence": 4.0, "parallelism": 4.0}
    both = {c.group: c.mean.value for c in grid.by_count_and_relation}
    assert both == {"1 single": 1.0, "2 parallelism": 4.0, "2 sequence": 2.0, "3 sequence": 6.0}


def robust(number: int, kind: str, base: int) -> dict[str, Any]:
    return {
        "id": f"prompt_{number:04d}",
        "prompt_text": f"sound {number}",
        "Dimensions of evaluation": "Robustness",
        "perturbation_type": kind,
        "notes": f"{base}; changed",
    }


def test_robustness_is_the_ratio_to_the_prompts_without_perturbation(tmp_path: Path) -> None:
    made = bench(
        tmp_path,
        [
            robust(1801, "space", 1),
            robust(1802, "space", 2),
            robust(1803, "synonym", 1),
            robust(1804, "synonym", 2),
        ],
    )
    perturbed = {"prompt_1801": 1.0, "prompt_1802": 2.0, "prompt_1803": 3.0, "prompt_1804": 6.0}
    clean = system("clean", {"prompt_0001": 2.0, "prompt_0002": 4.0})
    found = robustness(system("s", perturbed), clean, made, "clap")
    assert found.by_perturbation["space"].value == pytest.approx(0.5)
    assert found.by_perturbation["synonym"].value == pytest.approx(1.5)
    assert found.mean.value == pytest.approx(1.0)
    # every prompt has the same ratio, so drawing prompts changes nothing
    assert found.mean.low == pytest.approx(1.0)
    assert found.mean.high == pytest.approx(1.0)
    assert found.num_prompts == 2


def test_robustness_needs_the_source_prompts(tmp_path: Path) -> None:
    made = bench(tmp_path, [robust(1801, "space", 1), robust(1802, "space", 2)])
    scores = system("s", {"prompt_1801": 1.0, "prompt_1802": 2.0})
    with pytest.raises(ManifestError, match=r"no value for prompt_0002.*\(1 such\)"):
        robustness(scores, system("clean", {"prompt_0001": 1.0}), made, "clap")
    clean = system("clean", {"prompt_0001": -1.0, "prompt_0002": 0.5})
    with pytest.raises(InputError, match="positive mean"):
        robustness(scores, clean, made, "clap")


def test_robustness_refuses_a_metric_that_was_measured_in_two_ways(tmp_path: Path) -> None:
    made = bench(tmp_path, [robust(1801, "space", 1)])
    clean = system("clean", {"prompt_0001": 1.0}, fingerprint="two")
    with pytest.raises(ManifestError, match="clap was measured in two ways, 'one' and 'two'"):
        robustness(system("s", {"prompt_1801": 1.0}), clean, made, "clap")


def test_robustness_names_clips_that_failed_or_have_no_value(tmp_path: Path) -> None:
    made = bench(tmp_path, [robust(1801, "space", 1), robust(1802, "space", 2)])
    perturbed = system(
        "s", {"prompt_1801": 1.0, "prompt_1802": 1.0}, failures={"prompt_1802": "silent"}
    )
    clean = system(
        "clean",
        {"prompt_0001": 2.0, "prompt_0002": 1.0, "prompt_0003": 1.0},
        worst=0.0,
        failures={"prompt_0002": "missing", "prompt_0003": "missing"},
    )
    found = robustness(perturbed, clean, made, "clap")
    assert found.left_out == ("prompt_1802, seed 0 (silent)",)
    # only the source prompts that stand below the line are told
    assert found.failed == ()
    assert found.mean.value == pytest.approx(0.5)


def fair(number: int, group: str) -> dict[str, Any]:
    return {
        "id": f"prompt_{number:04d}",
        "prompt_text": f"sound {number}",
        "Dimensions of evaluation": "Fairness",
        "notes": group,
    }


def test_fairness_is_the_mean_difference_of_pairs_in_percent_of_the_better(
    tmp_path: Path,
) -> None:
    groups = ["male", "male", "female", "female", "en", "zh", "other"]
    made = bench(tmp_path, [fair(2101 + n, group) for n, group in enumerate(groups)])
    values = [2.0, 2.0, 1.0, 1.0, 4.0, 2.0, 1.0]
    scores = system("s", {f"prompt_{2101 + n}": value for n, value in enumerate(values)})
    found = fairness(scores, made, "clap")
    assert found.by_attribute["gender"].value == pytest.approx(50.0)
    assert found.by_attribute["language"].value == pytest.approx((50 + 75 + 50) / 3)
    assert "age" not in found.by_attribute
    assert {name: mean.value for name, mean in found.groups.items()} == {
        "en": 4.0, "female": 1.0, "male": 2.0, "other": 1.0, "zh": 2.0,
    }  # fmt: skip


def test_fairness_of_a_metric_that_is_not_positive_is_refused(tmp_path: Path) -> None:
    made = bench(tmp_path, [fair(2101, "male"), fair(2102, "female")])
    scores = system("s", {"prompt_2101": 1.0, "prompt_2102": -0.5})
    with pytest.raises(InputError, match=r"positive means of clap, got -0\.5 for female"):
        fairness(scores, made, "clap")


def test_a_system_does_not_look_harmless_because_it_fails(tmp_path: Path) -> None:
    lines = [
        {"id": id, "prompt_text": f"sound {id}", "categories": ["hate"], "notes": ""}
        for id in "abc"
    ]
    scores = system("s", dict.fromkeys("abc", 0.9), worst=0.0, failures={"b": "silent"})
    found = toxicity_rates(scores, bench(tmp_path, lines), "clap")
    assert found.shares["all"].value == 1.0
    assert (found.num_clips, found.left_out) == (2, ("b, seed 0 (silent)",))
    failed = system("s", {"a": 0.9}, worst=0.0, failures={"a": "silent"})
    with pytest.raises(ManifestError, match="none of 1 clips has a value for clap"):
        bias_shares(failed, "clap", "clap")


def test_prompts_that_were_not_scored_are_told_and_others_are_refused(tmp_path: Path) -> None:
    made = bench(tmp_path, [fair(1, "male"), fair(2, "male"), fair(3, "female")])

    def scored(number: int, prompt: str) -> SystemScores:
        (clip,) = system("s", {f"prompt_{number:04d}": 1.0}).clips
        return SystemScores(system="s", clips=(clip.model_copy(update={"prompt": prompt}),))

    assert unscored(scored(2, "sound 2"), made) == ("prompt_0001", "prompt_0003")
    with pytest.raises(ManifestError, match="made has no prompt prompt_0009"):
        unscored(scored(9, "sound 9"), made)
    with pytest.raises(ManifestError, match="prompt_0002 is 'rain', but 'sound 2' in made"):
        unscored(scored(2, "rain"), made)


def test_a_file_of_several_dimensions_or_of_none_has_none(tmp_path: Path) -> None:
    mixed = bench(tmp_path, [fair(1, "male"), accuracy(2, 1, "None")])
    with pytest.raises(ManifestError, match="prompts of accuracy and fairness"):
        _ = mixed.dimension
    plain = bench(tmp_path, [{"id": "a", "prompt": "rain"}])
    with pytest.raises(ManifestError, match="no prompt says which dimension"):
        _ = plain.dimension


def test_shares_of_voices_and_of_toxic_clips(tmp_path: Path) -> None:
    ids = ["prompt_2401", "prompt_2402", "prompt_2403", "prompt_2404"]
    male = system("s", dict(zip(ids, [0.9, 0.9, 0.1, 0.2], strict=True)), metric="male")
    female = system("s", dict(zip(ids, [0.1, 0.8, 0.7, 0.2], strict=True)), metric="female")
    both = male.model_copy(
        update={
            "cards": (*male.cards, *female.cards),
            "clips": tuple(
                one.model_copy(update={"values": one.values | two.values})
                for one, two in zip(male.clips, female.clips, strict=True)
            ),
        }
    )
    shares = bias_shares(both, "male", "female").shares
    assert {name: share.value for name, share in shares.items()} == {
        "male": 0.25, "female": 0.25, "both": 0.25, "neither": 0.25,
    }  # fmt: skip
    lines = [
        {"id": id, "prompt_text": id, "categories": [kind], "notes": ""}
        for id, kind in zip(ids, ["hate", "hate", "sexual", "sexual"], strict=True)
    ]
    rates = toxicity_rates(male, bench(tmp_path, lines), "male").shares
    assert {name: rate.value for name, rate in rates.items()} == {
        "all": 0.5, "hate": 1.0, "sexual": 0.0,
    }  # fmt: skip


def test_a_category_called_all_is_the_whole_and_counts_once(tmp_path: Path) -> None:
    kinds = {"a": "all", "b": "hate", "c": "hate"}
    lines = [
        {"id": id, "prompt_text": id, "categories": [kind], "notes": ""}
        for id, kind in kinds.items()
    ]
    scores = system("s", {"a": 0.9, "b": 0.1, "c": 0.1})
    found = toxicity_rates(scores, bench(tmp_path, lines), "clap")
    assert found.shares["all"].value == pytest.approx(1 / 3)
    assert found.shares["hate"].value == 0.0


def test_takes_of_one_prompt_are_one_trial_of_a_share(tmp_path: Path) -> None:
    once: dict[str, float] = {"a": 1.0, "b": 1.0, "c": 0.0}
    alike = {id: [value] * 5 for id, value in once.items()}
    lines = [{"id": id, "prompt_text": id, "categories": ["hate"], "notes": ""} for id in once]
    rated = [
        toxicity_rates(system("s", values), bench(tmp_path, lines), "clap").shares
        for values in (once, alike)
    ]
    assert rated[0] == rated[1]
    voiced = [bias_shares(system("s", values), "clap", "clap").shares for values in (once, alike)]
    assert voiced[0] == voiced[1]
    uneven = bias_shares(system("s", {"a": [1.0, 0.0], "b": [1.0]}), "clap", "clap").shares
    assert uneven["both"].value == 0.75


def test_efficiency_is_work_by_sound() -> None:
    made = system("s", {"a": 1.0, "b": 1.0}).model_copy(update={"facts": {"nfe": "25"}})
    found = efficiency(made)
    assert found.rtf == pytest.approx(0.1)
    assert (found.num_clips, found.nfe, found.params) == (2, "25", None)


def test_slips_are_named(tmp_path: Path) -> None:
    lines = [accuracy(1, 2, "None"), accuracy(2, 2, "sequence"), accuracy(4, 2, "sequence")]
    lines[1]["event_list"] = ["one"]
    lines[2]["prompt_text"] = "sound 1"
    assert bench(tmp_path, lines).slips == (
        "prompt_0002: event_count 2, but 1 events",
        "prompt_0001 and prompt_0004 are the same prompt",
        "1 prompts have the word None as event_relation; read as none",
        "prompt_0003 is missing",
    )


def test_a_field_of_another_type_is_named(tmp_path: Path) -> None:
    line = accuracy(1, 2, "sequence") | {"event_list": "bark"}
    with pytest.raises(ManifestError, match="prompt_0001: event_list is 'bark'"):
        bench(tmp_path, [line])
    with pytest.raises(ManifestError, match="prompt_1801: notes are 'none'"):
        bench(tmp_path, [robust(1801, "space", 1) | {"notes": "none"}])


@pytest.mark.skipif(not FILES.is_dir(), reason=f"needs TTA-Bench's files in {FILES}")
def test_the_published_files_are_what_is_known_of_them() -> None:
    sets = {path.stem: read_tta_bench(path) for path in FILES.glob("*.json")}
    assert {name: len(found.items) for name, found in sets.items()} == {
        "acc_prompt": 1500,
        "generalization_prompt": 300,
        "robustness_prompt": 300,
        "fairness_prompt": 299,
        "bias_prompt": 300,
        "toxicity_prompt": 300,
    }
    assert {name: found.dimension for name, found in sets.items()} == {
        "acc_prompt": "accuracy",
        "generalization_prompt": "generalization",
        "robustness_prompt": "robustness",
        "fairness_prompt": "fairness",
        "bias_prompt": "bias",
        "toxicity_prompt": "toxicity",
    }
    assert sum("event_count" in slip for slip in sets["acc_prompt"].slips) == 5
    assert "prompt_0223 and prompt_0230 are the same prompt" in sets["acc_prompt"].slips
    assert sets["fairness_prompt"].slips == ("prompt_2325 is missing",)
    robust_items = sets["robustness_prompt"].items
    assert Counter(item.perturbation for item in robust_items) == dict.fromkeys(PERTURBATIONS, 50)
    bases = {item.base_id for item in robust_items}
    assert len(bases) == 50
    assert bases <= {item.id for item in sets["acc_prompt"].items}
    assert (
        Counter(item.category for item in sets["toxicity_prompt"].items).most_common(1)[0][1] == 60
    )
    groups = Counter(item.group for item in sets["fairness_prompt"].items)
    assert (groups["male"], groups["old"], groups["en"]) == (50, 25, 33)
