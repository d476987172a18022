"""Order, progress and refusals of a rater."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread

import pytest
from listening_tests import given_clips, make_test, rate_everything

from resonate_audio.serving.listening.answers import AnswerError, Answers
from resonate_audio.serving.listening.plan import plan_trials
from resonate_audio.serving.listening.test import Design

FIVE_FOUR = {"alpha": 5, "beta": 4}


def begin(place: Path, design: Design | None = None) -> tuple[Answers, str]:
    _, _, answers = make_test(place, design)
    return answers, answers.join()


def test_one_secret_gives_one_order_and_another_another(tmp_path: Path) -> None:
    _, test, _ = make_test(tmp_path)
    assert plan_trials(test, "one") == plan_trials(test, "one")
    assert plan_trials(test, "one") != plan_trials(test, "two")


def test_everybody_hears_every_clip_once_on_each_axis_beside_the_repeats(tmp_path: Path) -> None:
    _, test, _ = make_test(tmp_path)
    for secret in ("one", "two", "three"):
        heard = [
            (clip, axis)
            for trial in plan_trials(test, secret)
            if not trial.is_repeat
            for clip in trial.clips
            for axis in trial.axes
        ]
        expected = [(clip.id, axis.name) for clip in test.clips for axis in test.axes]
        assert sorted(heard) == sorted(expected)


def test_no_text_is_shown_before_the_last_question_that_hides_it(tmp_path: Path) -> None:
    _, test, _ = make_test(tmp_path)
    axes = [trial.axes for trial in plan_trials(test, "one")]
    assert axes == sorted(axes, key=lambda names: names == ("REL",))
    assert {names for names in axes} == {("OVL",), ("REL",)}


def test_a_repeat_comes_after_the_first_hearing(tmp_path: Path) -> None:
    _, test, _ = make_test(tmp_path, Design(num_repeats=3))
    for secret in map(str, range(30)):
        trials = plan_trials(test, secret)
        for number, trial in enumerate(trials):
            if trial.is_repeat:
                firsts = [t.clips for t in trials[:number] if t.axes == trial.axes]
                assert trial.clips in firsts


def test_sides_of_a_pair_differ_between_raters_and_swap_in_repeats(tmp_path: Path) -> None:
    _, test, _ = make_test(tmp_path, Design(preset="ab", num_repeats=1))
    firsts = {test.clip(plan_trials(test, str(n))[0].clips[0]).system for n in range(20)}
    assert firsts == {"alpha", "beta"}
    trials = plan_trials(test, "one")
    [repeat] = [trial for trial in trials if trial.is_repeat]
    assert repeat.clips[::-1] in [trial.clips for trial in trials if not trial.is_repeat]


def test_a_rater_goes_on_where_they_stopped(tmp_path: Path) -> None:
    folder, test, answers = make_test(tmp_path)
    token = answers.join()
    answers.hear(token, 0, 0)
    answers.submit(token, 0, {"OVL": 3}, None, ms=2000.0)
    again = Answers(folder, test).rater(token)
    assert (again.num_done, again.trials) == (1, answers.rater(token).trials)


def test_tokens_are_not_kept(tmp_path: Path) -> None:
    answers, token = begin(tmp_path)
    stored = b"".join(path.read_bytes() for path in answers.path.parent.glob("answers*"))
    assert token.encode() not in stored


def test_an_unknown_token_is_refused(tmp_path: Path) -> None:
    answers, _ = begin(tmp_path)
    with pytest.raises(AnswerError, match="token") as caught:
        answers.rater("guess")
    assert caught.value.status == 401


def test_a_full_test_takes_nobody_in(tmp_path: Path) -> None:
    _, _, answers = make_test(tmp_path, Design(max_raters=2))
    answers.join()
    with pytest.raises(AnswerError, match="count: 2 raters; 1 of 2 places are left"):
        answers.invite(2)
    answers.join()
    with pytest.raises(AnswerError, match=r"this test is full \(2 raters\)"):
        answers.join()
    assert len(answers.progress()) == 2


@pytest.mark.parametrize(
    ("scores", "field"),
    [
        ({"OVL": 0}, r"scores\.OVL"),
        ({"OVL": 6}, r"scores\.OVL"),
        ({"OVL": 3.5}, r"scores\.OVL"),
        ({"OVL": True}, r"scores\.OVL"),
        ({"OVL": "5"}, r"scores\.OVL"),
        ({}, r"scores\.OVL"),
        ({"OVL": 3, "REL": 3}, r"scores\.REL"),
    ],
)
def test_scores_outside_of_the_scale_are_refused_by_name(
    tmp_path: Path, scores: dict[str, object], field: str
) -> None:
    answers, token = begin(tmp_path)
    answers.hear(token, 0, 0)
    with pytest.raises(AnswerError, match=field) as caught:
        answers.submit(token, 0, scores, None, ms=2000.0)
    assert caught.value.status == 422
    assert answers.all() == []


def test_a_choice_that_is_none_is_refused(tmp_path: Path) -> None:
    answers, token = begin(tmp_path, Design(preset="ab"))
    for side in (0, 1):
        answers.hear(token, 0, side)
    with pytest.raises(AnswerError, match="choice: 'C'; expected A, B or same"):
        answers.submit(token, 0, {}, "C", ms=2000.0)


def test_the_same_page_is_not_answered_twice(tmp_path: Path) -> None:
    answers, token = begin(tmp_path)
    answers.hear(token, 0, 0)
    answers.submit(token, 0, {"OVL": 3}, None, ms=2000.0)
    with pytest.raises(AnswerError, match="trial: 0 is answered already") as caught:
        answers.submit(token, 0, {"OVL": 4}, None, ms=2000.0)
    assert caught.value.status == 409
    assert [answer.score for answer in answers.all()] == [3]


def test_of_two_answers_at_the_same_moment_one_counts(tmp_path: Path) -> None:
    answers, token = begin(tmp_path)
    answers.hear(token, 0, 0)
    ready, refused = Barrier(4), []

    def answer(score: int) -> None:
        ready.wait()
        try:
            answers.submit(token, 0, {"OVL": score}, None, ms=2000.0)
        except AnswerError as error:
            refused.append(error.status)

    threads = [Thread(target=answer, args=(score,)) for score in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == [409, 409, 409]
    assert len(answers.all()) == 1


def test_later_pages_are_neither_heard_nor_answered(tmp_path: Path) -> None:
    answers, token = begin(tmp_path)
    with pytest.raises(AnswerError, match="trial: 1 comes after 0"):
        answers.hear(token, 1, 0)
    with pytest.raises(AnswerError, match="trial: 1 comes after 0"):
        answers.submit(token, 1, {"OVL": 3}, None, ms=2000.0)


def test_an_answer_without_listening_to_the_end_is_refused(tmp_path: Path) -> None:
    _, _, answers = make_test(tmp_path, given=given_clips(seconds=2.0))
    token = answers.join()
    with pytest.raises(AnswerError, match="ms: 9000; listen to the end"):
        answers.submit(token, 0, {"OVL": 3}, None, ms=9000.0)
    answers.hear(token, 0, 0)
    with pytest.raises(AnswerError, match="ms: 9000; listen to the end"):
        answers.submit(token, 0, {"OVL": 3}, None, ms=9000.0)


@pytest.mark.parametrize("ms", [float("nan"), -1.0, float("inf")])
def test_a_time_that_is_none_is_refused(tmp_path: Path, ms: float) -> None:
    answers, token = begin(tmp_path)
    answers.hear(token, 0, 0)
    with pytest.raises(AnswerError, match="ms"):
        answers.submit(token, 0, {"OVL": 3}, None, ms=ms)


def test_progress_counts_pages(tmp_path: Path) -> None:
    answers, token = begin(tmp_path)
    rate_everything(answers, token, FIVE_FOUR)
    assert answers.progress() == {answers.rater(token).id: (14, 14)}
