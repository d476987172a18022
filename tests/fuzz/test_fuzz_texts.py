"""Manifests, prompts, tables and recipes of random mistakes: read, or refused in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import fuzz, mutate
from reader_tables import CSV_READERS, JSON_READERS, TEXT_READERS, YAML_READERS

NAMES = [
    "prompt", "caption", "text", "id", "name", "audio_id", "audio_path", "captions", "num_frames",
    "start_frame", "duration", "step", "file", "seed", "sha256", "score", "rater", "clip", "system",
    "axis", "chosen", "rejected", "margin", "values", "wav_name", "person_id", "split", "kept",
    "broken", "windows", "format", "format_version", "version", "cards", "clips", "data",
]  # fmt: skip
WORDS = [
    b"[", b"{", b"]", b"}", b'"', b":", b",", b"\n", b"null", b"true", b"NaN", b"1e999", b"-1",
    b"9" * 40, b'"\\ud800"', b'"\\u0000"', b"\x00", b"\xff", "\u2028".encode(), b"[" * 100,
    b"0", b"1.5", b"{}", b"[]", b"\xef\xbb\xbf", b"'", b"#", b"\t", b"\r",
]  # fmt: skip
YAML_WORDS = [
    *WORDS, b"&a ", b"*a", b"<<: ", b"!!int ", b"!!timestamp ", b"!!python/name:os ", b"- ", b"? ",
    b"|", b">", b"%YAML 1.2\n", b"---\n", b"...", b".inf", b"2001-13-45", b"0b_", b"1:30", b"~",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, 0, 1, -1, 2.5, 10**18, "", "dog", "../../a", "a\nb", "\u2028", "x" * 3_000, [], {},
    ["a"], [[1]], {"a": {}}, [None], 1e300,
]  # fmt: skip


def value(rng: np.random.Generator, depth: int = 0) -> Any:
    """Something that JSON can say."""
    chosen = int(rng.integers(len(VALUES) + 4 * (depth < 3)))
    if chosen < len(VALUES):
        return VALUES[chosen]
    if chosen % 2:
        return [value(rng, depth + 1) for _ in range(int(rng.integers(4)))]
    return fields(rng, depth + 1)


def fields(rng: np.random.Generator, depth: int = 0) -> dict[str, Any]:
    """An object of known names and any values."""
    chosen = rng.choice(NAMES, int(rng.integers(1, 9)), replace=False)
    return {str(name): value(rng, depth) for name in chosen}


def json_text(rng: np.random.Generator) -> bytes:
    """JSON or JSON lines, often broken."""
    whole = [json.dumps(fields(rng), ensure_ascii=bool(rng.integers(2))) for _ in range(3)]
    forms = ["\n".join(whole), f"[{','.join(whole)}]", whole[0], f'{{"data": [{whole[0]}]}}']
    data = forms[int(rng.integers(4))].encode()
    return mutate(rng, data, WORDS) if rng.integers(3) else data


def table(rng: np.random.Generator) -> bytes:
    """A table, often broken."""
    columns = rng.choice(NAMES, int(rng.integers(1, 8)), replace=False)
    rows = [",".join(columns)]
    rows += [",".join(str(rng.choice(["dog", "1", "", '"a,b"', "-3.5"])) for _ in columns)] * 3
    data = "\n".join(rows).encode()
    return mutate(rng, data, WORDS) if rng.integers(3) else data


def yaml_text(rng: np.random.Generator) -> bytes:
    """A recipe, often broken."""
    lines = [f"{name}: {json.dumps(value(rng))}" for name in rng.choice(NAMES, 5, replace=False)]
    lines += ["base: &a {x: 1}", "more: {<<: *a, y: [1, 2]}", "list:", "  - a", "  - b: c"]
    return mutate(rng, "\n".join(lines).encode(), YAML_WORDS)


def test_manifests_and_every_json(tmp_path: Path) -> None:
    assert fuzz("manifests, prompts and other JSON", JSON_READERS, json_text, tmp_path) > 0


def test_tables(tmp_path: Path) -> None:
    assert fuzz("tables and texts", CSV_READERS + TEXT_READERS, table, tmp_path) > 0


def test_recipes(tmp_path: Path) -> None:
    assert fuzz("recipes of YAML", YAML_READERS, yaml_text, tmp_path) > 0
