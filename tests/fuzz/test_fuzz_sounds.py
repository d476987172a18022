"""Sound files and the recipes inside them, of random mistakes: read, or refused in one line."""

import base64
import io
import json
import zlib
from pathlib import Path

import numpy as np
import soundfile
from fuzzing import fuzz, mutate
from reader_tables import JSON_READERS, SOUND_READERS, WEIGHT_READERS
from test_k01_c_libraries import recipe_of
from test_k14_optional_data import with_comment
from test_k23_foreign_code import FILES

from resonate_audio.audio.embedded import RECIPE_KEY, format_recipe
from resonate_audio.audio.io import FORMATS, encode_audio
from resonate_audio.core.types import Audio

TONE = (0.3 * np.sin(np.arange(4_000))).astype(np.float32)
FOREIGN = [
    ("AIFF", "PCM_16", 1), ("AU", "ULAW", 1), ("CAF", "ALAC_16", 2), ("WAV", "IMA_ADPCM", 2),
    ("WAV", "GSM610", 1), ("VOC", "PCM_U8", 1), ("W64", "FLOAT", 3), ("RF64", "PCM_24", 2),
    ("XI", "DPCM_8", 1), ("SVX", "PCM_16", 1), ("NIST", "PCM_32", 2), ("MAT5", "DOUBLE", 1),
    ("PAF", "PCM_16", 1), ("IRCAM", "FLOAT", 2), ("WAV", "MS_ADPCM", 1), ("AU", "G723_24", 1),
]  # fmt: skip


def whole_sounds() -> list[bytes]:
    """One file of each kind, ours with a recipe."""
    ours = Audio(TONE, 16_000, recipe_of(2, 20))
    sounds = [encode_audio(ours, format) for format in FORMATS.values()]
    for container, codec, channels in FOREIGN:
        buffer = io.BytesIO()
        samples = np.repeat(TONE[:, None], channels, axis=1)
        soundfile.write(buffer, samples, 8_000, codec, format=container)
        sounds.append(buffer.getvalue())
    return sounds


def test_sounds(tmp_path: Path) -> None:
    sounds = whole_sounds()

    def make(rng: np.random.Generator) -> bytes:
        data = sounds[int(rng.integers(len(sounds)))]
        if rng.integers(2):  # headers are where lies are told
            return mutate(rng, data[:100]) + data[100:]
        return mutate(rng, data)

    assert fuzz("sounds", SOUND_READERS, make, tmp_path) > 0


def test_recipes_inside_sounds(tmp_path: Path) -> None:
    fields = json.loads(format_recipe(recipe_of(2, 5)))[RECIPE_KEY]
    values = [None, -1, 0, 2**63, 10**12, 1e300, "", "x" * 2_000, [], {}, ["a"], [1] * 2_000, True]

    def make(rng: np.random.Generator) -> bytes:
        changed = dict(fields)
        for name in rng.choice(list(fields), int(rng.integers(1, 4)), replace=False):
            changed[str(name)] = values[int(rng.integers(len(values)))]
        plain = json.dumps({RECIPE_KEY: changed})
        packed = base64.b64encode(zlib.compress(plain.encode(), 9))
        if rng.integers(2):
            packed = mutate(rng, packed)
        text = json.dumps({RECIPE_KEY: packed.decode("latin-1")}) if rng.integers(2) else plain
        if not rng.integers(3):
            text = mutate(rng, text.encode()).decode("latin-1")
        return with_comment(text.replace("\0", "") or " ")  # no comment cannot be written

    assert fuzz("recipes inside sounds", SOUND_READERS, make, tmp_path) > 0


def test_recipes_as_text(tmp_path: Path) -> None:
    fields = json.dumps(json.loads(format_recipe(recipe_of(2, 5)))[RECIPE_KEY]).encode()
    members = [member for member in JSON_READERS if member.name == "a recipe in a sound"]
    assert fuzz("recipes as text", members, lambda rng: mutate(rng, fields), tmp_path) > 0


def test_weights_arrays_and_tokenizers(tmp_path: Path) -> None:
    kinds = list(FILES.values())

    def make(rng: np.random.Generator) -> bytes:
        return mutate(rng, kinds[int(rng.integers(len(kinds)))][:5_000])

    assert fuzz("weights, arrays and tokenizers", WEIGHT_READERS, make, tmp_path) > 0
