from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_scenes import LALM

from resonate_audio.nano.bundle import BUNDLED_FOLDER
from resonate_audio.nano.judges.lalm import build_lalm, code_questions, save_lalm, tokens_within
from resonate_audio.nano.judges.questions import Phrase
from resonate_audio.rewards.audio_llm.model import AudioLLM

CAPTIONS = ["a dog barks twice", "rain falling, then a xylophone plays"]


@pytest.fixture(scope="module")
def lalm() -> AudioLLM:
    llm = build_lalm(LALM, CAPTIONS, BUNDLED_FOLDER / "text_encoder")
    llm.model.eval()
    return llm


def waves() -> torch.Tensor:
    return 0.1 * torch.randn(2, 79 * 1024, generator=torch.Generator().manual_seed(0))


def test_training_reads_the_same_tokens_as_scoring(lalm: AudioLLM) -> None:
    inputs = lalm.prepare(waves(), CAPTIONS)
    num_audio = int((inputs["input_ids"][0] == lalm.audio_id).sum())
    coded = code_questions(lalm, CAPTIONS, num_audio)
    assert torch.equal(coded.ids, inputs["input_ids"])
    assert torch.equal(coded.mask, inputs["attention_mask"])


def test_the_sound_lies_at_the_same_places_in_every_row(lalm: AudioLLM) -> None:
    coded = code_questions(lalm, CAPTIONS, 5)
    assert coded.is_audio[:, coded.audio].all()
    assert int(coded.is_audio.sum()) == 2 * 5


def test_phrases_are_found_among_the_tokens(lalm: AudioLLM) -> None:
    coded = code_questions(lalm, CAPTIONS, 5)
    first, second = CAPTIONS[1].split(", then ")
    phrases = (Phrase(0, len(first), 0), Phrase(len(CAPTIONS[1]) - len(second), 36, 1))
    tokens = coded.phrase_tokens([(), phrases])
    read = [lalm.tokenizer.decode(coded.ids[1][tokens[1, column]]) for column in range(3)]
    assert read == [first, second, ""]
    assert not tokens[0].any()


def test_a_token_that_reaches_past_a_phrase_is_not_its_own() -> None:
    assert tokens_within([(0, 0), (2, 5), (5, 9)], Phrase(0, 6, None), begin=2) == [1]


def test_yes_and_no_are_one_word_each(lalm: AudioLLM) -> None:
    assert len(lalm.yes_ids) == len(lalm.no_ids) == 1


def test_every_word_of_the_captions_is_known(lalm: AudioLLM) -> None:
    unknown = lalm.tokenizer.unk_token_id
    assert all(unknown not in lalm.tokenizer.encode(caption) for caption in CAPTIONS)


def test_words_begin_at_minilms_place(lalm: AudioLLM) -> None:
    vectors = torch.nn.functional.normalize(lalm.model.get_input_embeddings().weight, dim=1)
    yes, no, dog = (lalm.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no", "dog"))
    assert vectors[yes] @ vectors[no] > vectors[yes] @ vectors[dog]


def test_a_saved_judge_scores_like_the_trained_one(lalm: AudioLLM, tmp_path: Path) -> None:
    save_lalm(lalm, tmp_path)
    again = AudioLLM.from_folder(tmp_path, torch.device("cpu"), torch.float32)
    torch.testing.assert_close(
        again.log_odds(again.prepare(waves(), CAPTIONS)),
        lalm.log_odds(lalm.prepare(waves(), CAPTIONS)).detach(),
        atol=1e-3,
        rtol=0,
    )
