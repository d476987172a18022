from __future__ import annotations

import pytest

from resonate_audio.core.errors import ConfigError
from resonate_audio.rewards.audio_llm.model import QWEN2_5_OMNI, QWEN3_OMNI
from resonate_audio.rewards.audio_llm.question import NO, YES, make_question


def test_the_official_question_to_qwen2_5_is_letter_for_letter_what_its_code_sends() -> None:
    asked = make_question("official", QWEN2_5_OMNI.chat).ask("a dog barks")
    assert asked == (
        "<|im_start|>system\nYou are Qwen, a virtual human developed by the Qwen Team, Alibaba "
        "Group, capable of perceiving auditory and visual inputs, as well as generating text and "
        "speech.<|im_end|>\n<|im_start|>user\nDoes this audio contain the sound events described "
        "by the text: a dog barks? Please only answer yes or no, without other explanations."
        "<|audio_bos|><|AUDIO|><|audio_eos|><|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_papers_question_to_qwen3_has_no_system_turn() -> None:
    asked = make_question("paper", QWEN3_OMNI.chat).ask("rain")
    assert asked == (
        "<|im_start|>user\nDoes the audio contain the sound events described by the text: rain? "
        "Please answer yes or no.<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_official_question_counts_one_spelling_by_family() -> None:
    omni, omni3 = (make_question("official", family.chat) for family in (QWEN2_5_OMNI, QWEN3_OMNI))
    assert (omni.yes, omni.no) == (("Yes",), ("No",))
    assert (omni3.yes, omni3.no) == (("yes",), ("no",))


def test_every_other_question_counts_all_spellings() -> None:
    question = make_question("Do you hear {c}?", QWEN3_OMNI.chat)
    assert (question.name, question.yes, question.no) == ("own", YES, NO)


def test_the_fingerprint_of_a_question_changes_with_wording_and_family_only() -> None:
    made = [
        make_question(name, chat).fingerprint
        for name in ("paper", "official")
        for chat in (QWEN2_5_OMNI.chat, QWEN3_OMNI.chat)
    ]
    assert len(set(made)) == 4
    assert make_question("paper", QWEN2_5_OMNI.chat).fingerprint == made[0]


def test_braces_in_a_caption_are_plain_letters() -> None:
    assert "text: a {c} b?" in make_question("paper", QWEN3_OMNI.chat).ask("a {c} b")


@pytest.mark.parametrize("wording", ["Is it good?", "{c} or {c}?", ""])
def test_a_wording_without_one_place_for_the_caption_is_refused(wording: str) -> None:
    with pytest.raises(ConfigError, match=r"one \{c\}"):
        make_question(wording, QWEN3_OMNI.chat)
