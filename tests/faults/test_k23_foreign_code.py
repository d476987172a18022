"""K23: other people's code and files may raise, exit or panic; that is one error of ours."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reader_tables import WEIGHT_READERS, Member, try_reading

from resonate_audio.core.errors import ConfigError, ResonateError, RewardError

MODULES = {
    "syntax": "def judge(:\n",
    "raises": "raise RuntimeError('no')\n",
    "exits": "import sys; sys.exit(3)\n",
    "aborts": "raise KeyError\n",
    "imports": "import no_such_module_at_all\n",
    "nothing": "",
    "data": "judge = 5\n",
    "endless": "judge = judge\n",
    "deep": "def f(): return f()\nf()\n",
    "attribute": "def __getattr__(name): raise ValueError(name)\n",
    "class_raises": "class judge:\n    def __init__(self): raise SystemExit(1)\n",
    "class_asks": "class judge:\n    def __init__(self, more): pass\n",
    "bytes": "\x00\x01",
}
PLACES = [
    "..:f",
    ".a:f",
    ":f",
    "a:",
    "a b:f",
    "no_such_module:f",
    "os.path.nothing:f",
    "1:2",
    "é:f",
]
JUDGES = {
    "raises": "raise RuntimeError('no' * 10_000)",
    "exits": "raise SystemExit(3)",
    "gives nothing": "return None",
    "gives text": "return ['a'] * len(prompts)",
    "gives too few": "return []",
    "gives NaN": "return [float('nan')] * len(prompts)",
    "gives a table": "return [[1.0]] * len(prompts)",
    "gives what breaks": "return type('X', (), {'__len__': lambda self: 1 / 0})()",
}


def open_judge(place: str) -> Any:
    from resonate_audio.rewards.catalogue import open_reward

    return open_reward(place)


def open_embedder(place: str) -> Any:
    from resonate_audio.evaluation.distances.embeddings import open_embedder

    return open_embedder(place)


def open_classifier(place: str) -> Any:
    from resonate_audio.evaluation.distances.embeddings import open_classifier

    return open_classifier(place)


OPENERS = [open_judge, open_embedder, open_classifier]
"""Everything that takes ``module:name``; a new door gets a row."""


@pytest.mark.parametrize("opener", OPENERS, ids=lambda opener: opener.__name__)
@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_cannot_be_used_is_one_error(
    opener: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"foreign_{name}_{opener.__name__}"
    (tmp_path / f"{module}.py").write_text(MODULES[name])
    monkeypatch.chdir(tmp_path)
    if name.startswith("class") and opener is not open_judge:
        pytest.skip("a class is a function that gives an object; it is called later")
    with pytest.raises(ConfigError, match=module) as said:
        opener(f"{module}:judge")
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("opener", OPENERS, ids=lambda opener: opener.__name__)
@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_is_none_is_one_error(opener: Any, place: str) -> None:
    with pytest.raises(ResonateError):
        opener(place)


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_that_fails_is_one_error_that_names_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resonate_audio.core.types import Waveform
    from resonate_audio.rewards.desk import score_now

    module = f"judge_{name.replace(' ', '_')}"
    (tmp_path / f"{module}.py").write_text(f"def f(samples, rate, prompts):\n    {JUDGES[name]}\n")
    monkeypatch.chdir(tmp_path)
    judge = open_judge(f"{module}:f")
    with pytest.raises(RewardError, match=module) as said:
        score_now(judge, Waveform(torch.zeros(1, 16_000), 16_000), ["a dog"])
    assert len(str(said.value)) < 1_000


CLASSES = {
    "raises": "raise KeyError('x')",
    "exits": "raise SystemExit(3)",
    "gives a number": "return 5",
    "gives nothing": "pass",
    "is out of time": "raise TimeoutError",
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_judge_of_a_class_that_fails_is_one_error_that_names_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resonate_audio.core.types import Waveform
    from resonate_audio.rewards.desk import score_now

    module = f"own_{name.replace(' ', '_')}"
    (tmp_path / f"{module}.py").write_text(
        f"class J:\n    name = 'own judge'\n"
        f"    async def score(self, audio, prompts):\n        {CLASSES[name]}\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RewardError, match="own judge"):
        score_now(open_judge(f"{module}:J"), Waveform(torch.zeros(1, 16_000), 16_000), ["a dog"])


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(118 - 10 + 10, b" ") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def saved(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def header_of(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


class Evil:
    """Runs code where a pickle is trusted."""

    def __reduce__(self) -> Any:
        return (print, ("this must not be printed",))


FILES = {
    "nothing": b"",
    "text": b"a dog barks",
    "zeros": bytes(1_000),
    "a pickle of code": pickle.dumps(Evil()),
    "a pickle of a list": pickle.dumps([1, 2]),
    "a pickle that is cut off": pickle.dumps({"a": list(range(1_000))})[:-20],
    "a pickle of nonsense": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.",
    "a pickle of marks": b"\x80\x02((((((t.",
    "a pickle of attributes": b"\x80\x02ctorch\nnothing\n.",
    "an empty zip": b"PK\x05\x06" + bytes(18),
    "half a zip": saved(a=np.zeros(100))[:200],
    "a zip of arrays": saved(a=np.zeros(10)),
    "a header of null": header_of("null"),
    "a header of a list": header_of("[]"),
    "a header without end": header_of('{"a": {"dtype": "F32"'),
    "a header that is deep": header_of("[" * 100_000),
    "a tensor without type": header_of('{"a": {"shape": [1], "data_offsets": [0, 4]}}') + bytes(4),
    "a tensor of nothing": header_of('{"a": null}'),
    "a tensor that lies outside": header_of(
        '{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}'
    ),
    "a tensor that is huge": header_of(
        '{"a": {"dtype": "F32", "shape": [4611686018427387904], "data_offsets": [0, 4]}}'
    ) + bytes(4),
    "a length beyond the file": struct.pack("<Q", 2**60) + b"{}",
    "an array of objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"\x80."),
    "an array of nonsense": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,"),
    "an array of marks": npy("((((((((((((((((((((((((("),
    "an array that is huge": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (10**18,)}"),
    "an array that is cut off": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99,)}"),
    "an array of another version": b"\x93NUMPY\x09\x00" + bytes(100),
    "a tokenizer without a model": b'{"version": "1.0"}',
    "a tokenizer of nothing": b'{"version": "1.0", "model": {"type": "WordPiece", "vocab": {}}}',
    "a tokenizer of numbers": json.dumps({"model": {"type": "BPE", "vocab": {"a": -1}}}).encode(),
    "a tokenizer of a gap": json.dumps({
        "version": "1.0", "added_tokens": [{"id": 2**31, "content": "a"}], "normalizer": None,
        "model": {"type": "Unigram", "unk_id": 99, "vocab": []},
    }).encode(),
    "deep JSON": b"[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("member", WEIGHT_READERS, ids=str)
def test_files_of_others_are_refused_in_one_line(
    member: Member, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in FILES.items():
        path = tmp_path / member.file
        path.write_bytes(content)
        message = try_reading(member, path)
        if name not in ("a header of null", "nothing") and not name.startswith("a tensor"):
            takes = {"a tokenizer of nothing", "a zip of arrays"}
            assert message is not None or name in takes, f"{name} was read"
    assert "must not be printed" not in capsys.readouterr().out


def test_mutated_weights_are_read_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix, member in ((".pth", "a pickle of weights"), (".safetensors", "weights")):
        buffer = io.BytesIO()
        if suffix == ".pth":
            torch.save({"a": torch.zeros(3), "b": torch.ones(2)}, buffer)
        else:
            from safetensors.torch import save

            buffer.write(save({"a": torch.zeros(3), "b": torch.ones(2)}))
        whole = np.frombuffer(buffer.getvalue(), np.uint8)
        reader = next(one for one in WEIGHT_READERS if one.name == member)
        for _ in range(150):
            data = whole.copy()
            places = rng.integers(0, len(data), rng.integers(1, 6))
            data[places] = rng.integers(0, 256, len(places))
            (tmp_path / f"w{suffix}").write_bytes(data[: rng.integers(1, len(data) + 1)].tobytes())
            try_reading(reader, tmp_path / f"w{suffix}")


def test_members_of_a_shard_that_are_no_arrays_are_bad_clips_and_not_the_end() -> None:
    from resonate_audio.data.shards.read import Shards, decode_audio, decode_latents
    from resonate_audio.data.shards.write import SAMPLE, pack_sample

    class Opened:
        samples = np.zeros(1, SAMPLE)
        place = type("Place", (), {"name": "here"})
        _decode = Shards._decode

        def _entry(self, number: int) -> Any:
            return type("Entry", (), {"name": "0.tar"})

    import zlib

    shards: Any = Opened()
    for content in [*FILES.values(), zipfile.Path.__doc__.encode()]:
        for decode in (decode_audio, decode_latents):
            names = ("flac", "latents.safetensors", "text.safetensors")
            packed = pack_sample("000000-000000", dict.fromkeys(names, content))
            shards.samples["crc"] = zlib.crc32(packed)
            found = shards._decode(0, packed, decode)
            assert found.reason.startswith("here/0.tar, byte 0: "), found
