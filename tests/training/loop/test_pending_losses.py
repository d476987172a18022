"""What is logged of several steps."""

from __future__ import annotations

import pytest
import torch

from resonate_audio.core.errors import TrainingError
from resonate_audio.training.loop.losses import PendingLosses


def test_of_several_steps_the_mean_is_logged_and_of_a_largest_deviation_the_largest() -> None:
    pending = PendingLosses()
    for step, (loss, deviation) in enumerate([(1.0, 0.01), (3.0, 0.5), (2.0, 0.02)]):
        losses = {"loss": torch.tensor(loss), "ratio/max_abs_dev": torch.tensor(deviation)}
        pending.add(step, losses)
    assert pending.summary(lambda values: values) == {"loss": 2.0, "ratio/max_abs_dev": 0.5}
    assert pending.summary(lambda values: values) == {}


def test_the_first_step_whose_loss_is_no_number_is_named() -> None:
    pending = PendingLosses()
    for step, loss in enumerate([1.0, float("nan"), float("inf")]):
        pending.add(step, {"loss": torch.tensor(loss)})
    with pytest.raises(TrainingError, match="step 1: loss is nan"):
        pending.summary(lambda values: values)
