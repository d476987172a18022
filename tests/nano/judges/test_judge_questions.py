from __future__ import annotations

import numpy as np
import pytest

from resonate_audio.core.errors import InputError
from resonate_audio.nano.judges.questions import (
    COUNTS,
    SCENES_FOR,
    TOO_ALIKE,
    WRONG_KINDS,
    Classes,
    QuestionKind,
    Scene,
    SceneKind,
    SceneMaker,
    Source,
    ask,
    without_event,
)

RATE_HZ = 1000
CANVAS = 5 * RATE_HZ
LABELS = ("bell", "cow", "dog", "hound", "rain")
SOURCES = (
    Source("dog", ("a dog barks",), 300, ("a dog barks",)),
    Source("dog", ("a dog barks", "a bark"), 400, ("a dog barks", "a bark")),
    Source("hound", ("a hound howls",), 900),
    Source("cow", ("a cow moos", "the moo of a cow"), 1200),
    Source("bell", ("a bell rings",), 700, ("a bell rings",)),
    Source("rain", ("rain falling",), 5000),
)
SCENE_KINDS: tuple[SceneKind, ...] = ("single", "counted", "together", "sequence")


def maker() -> SceneMaker:
    similarity = np.eye(len(LABELS), dtype=np.float32)
    dog, hound = LABELS.index("dog"), LABELS.index("hound")
    similarity[dog, hound] = similarity[hound, dog] = TOO_ALIKE
    return SceneMaker(SOURCES, Classes(LABELS, similarity), CANVAS, RATE_HZ)


def scenes(kind: SceneKind, num: int = 200) -> list[tuple[Scene, np.random.Generator]]:
    rng = np.random.default_rng(5)
    drawn = maker()
    return [(drawn.scene(rng, kind), rng) for _ in range(num)]


def asked(kind: QuestionKind, scene_kind: SceneKind) -> list[tuple[Scene, str]]:
    return [
        (scene, maker().question(scene, kind, rng).text) for scene, rng in scenes(scene_kind, 100)
    ]


def test_the_same_seed_asks_the_same_questions() -> None:
    def draw() -> list[str]:
        rng = np.random.default_rng(3)
        drawn = maker()
        return [
            question.text
            for _ in range(20)
            for question in drawn.questions(drawn.scene(rng), 4, rng)
        ]

    assert draw() == draw()


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_everything_lies_on_the_canvas(kind: SceneKind) -> None:
    for scene, _ in scenes(kind):
        for placed in scene.placements:
            assert 0 <= placed.start < placed.start + placed.num_samples <= CANVAS


def test_events_in_sequence_do_not_overlap() -> None:
    for scene, _ in scenes("sequence"):
        for before, after in zip(scene.placements, scene.placements[1:], strict=False):
            assert before.start + before.num_samples < after.start


def test_counted_events_are_apart_by_what_an_ear_can_tell() -> None:
    for scene, _ in scenes("counted"):
        for before, after in zip(scene.placements, scene.placements[1:], strict=False):
            assert after.start - before.start - before.num_samples >= 0.15 * RATE_HZ


def test_a_counted_scene_has_as_many_recordings_as_it_says() -> None:
    for scene, _ in scenes("counted"):
        assert len(scene.placements) == scene.events[0].count


def test_classes_that_are_too_alike_never_meet_in_a_scene() -> None:
    for kind in ("together", "sequence"):
        for scene, _ in scenes(kind):
            assert not {"dog", "hound"} <= {event.label for event in scene.events}


def test_a_class_too_alike_is_never_the_wrong_event() -> None:
    for scene, text in asked("wrong event", "single"):
        if scene.events[0].label == "dog":
            assert "hound" not in text


def test_a_wrong_event_leaves_a_phrase_without_an_event() -> None:
    for scene, rng in scenes("sequence", 50):
        phrases = maker().question(scene, "wrong event", rng).phrases
        assert sum(phrase.event is None for phrase in phrases) == 1


def test_a_missing_event_is_named_beside_all_that_are_there() -> None:
    for scene, rng in scenes("together", 50):
        phrases = maker().question(scene, "missing event", rng).phrases
        assert sorted(-1 if p.event is None else p.event for p in phrases) == [-1, 0, 1]


def test_a_wrong_order_names_the_same_events_in_another_order() -> None:
    for scene, rng in scenes("sequence", 50):
        named = [p.event for p in maker().question(scene, "wrong order", rng).phrases]
        assert None not in named
        assert sorted(named, key=str) == list(range(len(scene.events)))
        assert named != sorted(named, key=str)


def test_a_wrong_count_says_any_other_number() -> None:
    said: set[str] = set()
    for scene, text in asked("wrong count", "counted"):
        right = COUNTS[scene.events[0].count]
        assert not text.endswith(tuple(f" {words}" for words in right))
        said.add(text.split(" ", 3)[-1])
    assert {"once", "twice", "three times", "four times", "five times"} <= said


def test_right_and_wrong_counts_are_equally_frequent_in_texts() -> None:
    drawn, rng = maker(), np.random.default_rng(0)
    right, wrong = np.zeros(6), np.zeros(6)
    words = {word: count for count, options in COUNTS.items() for word in options}
    for _ in range(3000):
        scene = drawn.scene(rng, "counted")
        right[scene.events[0].count] += 1
        text = drawn.question(scene, "wrong count", rng).text
        wrong[next(c for word, c in words.items() if text.endswith(f" {word}"))] += 1
    np.testing.assert_allclose(right[1:] / 3000, 0.2, atol=0.03)
    np.testing.assert_allclose(wrong[1:] / 3000, 0.2, atol=0.03)


@pytest.mark.parametrize("kind", WRONG_KINDS)
def test_wrong_texts_are_answered_no(kind: QuestionKind) -> None:
    scene, rng = scenes(SCENES_FOR[kind][-1], 1)[0]
    while kind == "missing event" and len(scene.events) > 2:
        scene = maker().scene(rng, "sequence")
    assert maker().question(scene, kind, rng).answer is False


def test_half_of_the_questions_are_answered_yes() -> None:
    for kind in SCENE_KINDS:
        for scene, rng in scenes(kind, 20):
            assert [q.answer for q in maker().questions(scene, 4, rng)].count(True) == 2


def test_order_and_count_are_asked_about_whenever_there_are_any() -> None:
    for kind, hard in (("sequence", "wrong order"), ("counted", "wrong count")):
        for scene, rng in scenes(kind, 20):  # type: ignore[arg-type]
            assert hard in {question.kind for question in maker().questions(scene, 4, rng)}


def test_a_question_that_makes_no_sense_is_refused() -> None:
    scene, rng = scenes("single", 1)[0]
    with pytest.raises(InputError, match="wrong order"):
        maker().question(scene, "wrong order", rng)


def test_phrases_point_at_the_words_that_name_events() -> None:
    question = ask("{1} while {0}", [("a dog barks", 0), ("rain falling", None)], "wrong event")
    spans = {question.text[p.begin : p.end]: p.event for p in question.phrases}
    assert spans == {"rain falling": None, "a dog barks": 0}


def test_leaving_an_event_out_leaves_the_others_where_they_are() -> None:
    scene, _ = scenes("sequence", 1)[0]
    rest = without_event(scene, 0).placements
    assert rest == tuple(placed for placed in scene.placements if placed.event != 0)


def test_recordings_of_unknown_classes_are_left_out() -> None:
    classes = Classes(("dog", "rain"), np.eye(2, dtype=np.float32))
    drawn, rng = SceneMaker(SOURCES, classes, CANVAS, RATE_HZ), np.random.default_rng(1)
    heard = {drawn.scene(rng, "single").events[0].label for _ in range(50)}
    assert heard == {"dog", "rain"}
