from __future__ import annotations

import json
import math
from typing import Any

import pytest

from resonate_audio.core.errors import RewardError
from resonate_audio.rewards.remote.answer import (
    REMAINDER_SLACK,
    Labels,
    TokenLogprob,
    label_ids,
    read_answer,
    read_reply,
    read_score,
)

ONE_EACH = Labels(frozenset({"Yes"}), frozenset({"No"}))
TWO_EACH = Labels(frozenset({"Yes", "yes"}), frozenset({"No", "no"}))
BY_ID = Labels(frozenset({"token_id:3"}), frozenset({"token_id:4"}))


def listed(**probabilities: float) -> list[TokenLogprob]:
    return [TokenLogprob(token, math.log(p)) for token, p in probabilities.items()]


def reply(top: list[dict[str, Any]], first: dict[str, Any] | None = None) -> bytes:
    position = (first or top[0]) | {"top_logprobs": top}
    return json.dumps({"choices": [{"logprobs": {"content": [position]}}]}).encode()


def test_the_score_is_yes_over_yes_and_no() -> None:
    answer = read_answer(listed(Yes=0.6, No=0.2, The=0.2), [ONE_EACH], 3)
    assert answer.p_yes == pytest.approx(0.75, abs=1e-12)
    assert answer.mass == pytest.approx(0.8)
    assert answer.bound_width == 0.0


def test_spellings_add_up() -> None:
    answer = read_answer(listed(Yes=0.3, yes=0.3, No=0.15, no=0.05), [TWO_EACH], 20)
    assert answer.p_yes == pytest.approx(0.75, abs=1e-12)


def test_odds_of_labels_that_are_both_unlikely_are_exact() -> None:
    rows = [TokenLogprob("Yes", -600.0), TokenLogprob("No", -600.0 - math.log(3)), *listed(The=1.0)]
    assert read_answer(rows, [ONE_EACH], 3).p_yes == pytest.approx(0.75, abs=1e-12)


def test_a_label_of_no_probability_settles_the_answer() -> None:
    rows = [TokenLogprob("Yes", -0.1), TokenLogprob("No", -9999.0)]
    assert read_answer(rows, [ONE_EACH], 2).p_yes == 1.0


def test_log_odds_tell_apart_what_is_all_but_certain() -> None:
    sure, surer = (
        read_answer([TokenLogprob("Yes", -1e-9), TokenLogprob("No", no)], [ONE_EACH], 2)
        for no in (-50.0, -60.0)
    )
    assert sure.p_yes == surer.p_yes == 1.0
    assert surer.log_odds - sure.log_odds == pytest.approx(10.0)


def test_minus_infinity_is_a_finite_number_of_no_probability() -> None:
    top = [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -math.inf}]
    answer = read_answer(read_reply(reply(top)), [ONE_EACH], 2)
    assert answer.p_yes == 1.0
    assert math.isfinite(answer.log_odds)


def test_a_hidden_label_has_at_most_what_the_last_listed_token_has() -> None:
    answer = read_answer(listed(Yes=0.6, The=0.2, A=0.05), [ONE_EACH], 3)
    assert answer.upper == 1.0
    assert answer.lower == pytest.approx(0.6 / 0.65)
    assert answer.p_yes == pytest.approx((1 + 0.6 / 0.65) / 2)


def test_hidden_labels_together_have_at_most_what_the_list_leaves() -> None:
    answer = read_answer(listed(Yes=0.6, No=0.38, The=0.015), [TWO_EACH], 3)
    room = 0.005 + REMAINDER_SLACK
    assert answer.lower == pytest.approx(0.6 / (0.98 + room))
    assert answer.upper == pytest.approx((0.6 + room) / (0.98 + room))


def test_a_list_shorter_than_asked_may_hide_likelier_tokens() -> None:
    short = read_answer(listed(Yes=0.5, No=0.1), [TWO_EACH], 20)
    assert short.lower == pytest.approx(0.5 / (0.6 + 0.4 + REMAINDER_SLACK))


@pytest.mark.parametrize("top_k", range(2, 9))
def test_the_bounds_hold_the_true_score(top_k: int) -> None:
    truth = dict(Yes=0.3, The=0.2, no=0.15, A=0.12, yes=0.1, No=0.08, It=0.05)
    exact = read_answer(listed(**truth), [TWO_EACH], 7).p_yes
    top = dict(list(truth.items())[:top_k])
    answer = read_answer(listed(**top), [TWO_EACH], top_k)
    assert answer.lower <= exact <= answer.upper


def test_ids_are_read_where_the_server_lists_ids() -> None:
    rows = [TokenLogprob("token_id:3", math.log(0.2)), TokenLogprob("token_id:4", math.log(0.6))]
    assert read_answer(rows, [BY_ID, ONE_EACH], 20).p_yes == pytest.approx(0.25)


def test_text_is_read_where_the_server_lists_text() -> None:
    answer = read_answer(listed(Yes=0.2, No=0.6), [BY_ID, ONE_EACH], 20)
    assert answer.p_yes == pytest.approx(0.25)
    assert answer.bound_width == 0.0


def test_an_answer_that_is_neither_names_what_came_instead() -> None:
    with pytest.raises(RewardError, match=r"neither yes nor no but 'The' \(p = 0.9"):
        read_answer(listed(The=0.9, A=0.1), [ONE_EACH], 2)


def test_the_first_token_counts_when_the_list_leaves_it_out() -> None:
    first, other = {"token": "Yes", "logprob": -0.5}, {"token": "No", "logprob": -1.0}
    assert read_reply(reply([other], first)) == [
        TokenLogprob("No", -1.0),
        TokenLogprob("Yes", -0.5),
    ]


def test_the_first_token_counts_once() -> None:
    assert len(read_reply(reply([{"token": "Yes", "logprob": -0.5}]))) == 1


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"<html>", "body: Invalid JSON"),
        (b"{}", "choices: Field required"),
        (b'{"choices": []}', "choices: List should have at least 1 item"),
        (b'{"choices": [{"logprobs": null}]}', "choices.0.logprobs"),
        (b'{"choices": [{"logprobs": {"content": []}}]}', "logprobs.content"),
        (reply([{"token": "Yes", "logprob": None}]), "logprob"),
        (reply([{"token": "Yes", "logprob": math.nan}]), "'Yes' the log-probability nan"),
        (reply([{"token": "Yes", "logprob": 0.7}]), "'Yes' the log-probability 0.7"),
    ],
)
def test_what_is_no_log_probability_is_refused(body: bytes, cause: str) -> None:
    with pytest.raises(RewardError, match=cause):
        read_reply(body)


def test_spellings_of_one_token_become_ids() -> None:
    split = {"Yes": [7], " Yes": [7], "YES": [1, 2], "No": [9]}
    labels = label_ids(["Yes", " Yes", "YES"], ["No"], split)
    assert labels.token_ids == [7, 9]


@pytest.mark.parametrize("split", [{"Yes": [1, 2], "No": [3]}, {"Yes": [3], "No": [3]}])
def test_answers_without_a_token_of_their_own_are_refused(split: dict[str, list[int]]) -> None:
    with pytest.raises(RewardError, match="no token of its own"):
        label_ids(["Yes"], ["No"], split)


def test_a_score_beside_the_tokens_may_be_any_finite_number() -> None:
    told = {"resonate_score": {"total": -31.5, "parts": {"PQ": 7.25}}}
    score = read_score(json.dumps({"choices": []} | told).encode())
    assert score is not None
    assert (score.total, score.parts) == (-31.5, {"PQ": 7.25})


def test_a_reply_without_a_score_has_none() -> None:
    assert read_score(reply([{"token": "Yes", "logprob": -0.1}])) is None
    assert read_score(b"not JSON") is None


@pytest.mark.parametrize("total", ["NaN", "Infinity", '"loud"', "null"])
def test_a_score_that_is_no_number_is_an_error(total: str) -> None:
    body = f'{{"resonate_score": {{"total": {total}}}}}'
    with pytest.raises(RewardError, match=r"a score that is none \(resonate_score\.total"):
        read_score(body.encode())
