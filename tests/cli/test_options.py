from __future__ import annotations

import pytest

from resonate_audio.cli.options import SAMPLING, as_options, with_given_paths
from resonate_audio.core.sampling import FAST, Sampling


def gathered(**given: object) -> dict[str, object]:
    left_open = {parameter.name: None for parameter in SAMPLING.parameters}
    found: dict[str, object] = SAMPLING.gather(left_open | {"fast": False} | given)
    return found


def test_fast_is_a_choice_of_settings_and_what_is_given_besides_wins() -> None:
    assert gathered() == {}
    assert gathered(fast=True) == FAST
    assert gathered(fast=True, num_inference_steps=5) == FAST | {"num_inference_steps": 5}


def test_fast_is_settings_that_there_are_and_takes_fewer_evaluations() -> None:
    sampling = Sampling(1.0, **FAST)
    assert sampling.num_inference_steps < Sampling(1.0).num_inference_steps
    assert sampling.solver in ("euler", "ab2")  # one evaluation a step
    assert as_options({"num_inference_steps": 3, "solver": "ab2"}) == "--steps 3 --solver ab2"


def test_a_file_that_ends_too_early_is_not_taken_for_a_person_who_left() -> None:
    def command() -> None:
        raise EOFError("marshal data too short")

    with pytest.raises(RuntimeError, match="ends too early: marshal data too short"):
        with_given_paths(command)()
