import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resonate_audio.core.errors import RewardError
from resonate_audio.rewards.audio_llm.yes_no import yes_probability

logits = st.lists(st.floats(-20, 20), min_size=4, max_size=4)


def test_equal_logits_are_a_coin_toss() -> None:
    assert yes_probability(torch.tensor([[2.0]]), torch.tensor([[2.0]])).item() == 0.5


def test_probabilities_of_all_spellings_add_up() -> None:
    yes, no = torch.tensor([[0.2, 0.1]]).log(), torch.tensor([[0.05, 0.1, 0.05]]).log()
    assert yes_probability(yes, no).item() == pytest.approx(0.3 / 0.5)


@settings(deadline=None)
@given(logits)
def test_logits_and_log_probabilities_give_the_same(values: list[float]) -> None:
    row = torch.tensor([values], dtype=torch.float64)
    log_probs = row.log_softmax(dim=1)
    torch.testing.assert_close(
        yes_probability(row[:, :2], row[:, 2:]), yes_probability(log_probs[:, :2], log_probs[:, 2:])
    )


@settings(deadline=None)
@given(logits)
def test_asking_for_no_gives_the_rest(values: list[float]) -> None:
    row = torch.tensor([values], dtype=torch.float64)
    yes, no = row[:, :2], row[:, 2:]
    assert (yes_probability(yes, no) + yes_probability(no, yes)).item() == pytest.approx(1)


def test_large_logits_do_not_overflow() -> None:
    high, low = torch.tensor([[1e4]]), torch.tensor([[-1e4]])
    assert (yes_probability(high, low).item(), yes_probability(low, high).item()) == (1, 0)


def test_one_missing_answer_is_certainty_of_the_other() -> None:
    assert yes_probability(torch.tensor([[0.0]]), torch.tensor([[-math.inf]])).item() == 1


def test_half_precision_logits_are_compared_in_float32() -> None:
    p = yes_probability(torch.tensor([[1.0]]).bfloat16(), torch.tensor([[0.0]]).bfloat16())
    assert p.item() == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-6)


def test_no_answer_at_all_is_an_error_that_names_the_row() -> None:
    yes = torch.tensor([[0.0], [-math.inf]])
    with pytest.raises(RewardError, match="row 2: the judge gave neither yes nor no"):
        yes_probability(yes, yes)
