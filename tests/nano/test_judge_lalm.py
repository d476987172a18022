from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_scenes import LALM

from resonate_audio.nano.bundle import BUNDLED_FOLDER
from resonate_audio.nano.judge_lalm import build_lalm, save_lalm, word_ids
from resonate_audio.rewards.audio_llm import AudioLLM

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
    ids, mask = word_ids(lalm, CAPTIONS, num_audio)
    assert torch.equal(ids, inputs["input_ids"])
    assert torch.equal(mask, inputs["attention_mask"])


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
