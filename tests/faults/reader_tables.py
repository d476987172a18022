"""Who reads what: every reader of text, sound, numbers and weights that a file can reach.

A new reader is covered by adding its row; `test_contract.py` fails while it has none.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resonate_audio.core.errors import ResonateError

Read = Callable[[Path], Any]
MARKS_OF_RAW_ERRORS = ("Traceback", " object at 0x", "https://errors.pydantic.dev")


@dataclass(frozen=True)
class Member:
    """One reader."""

    name: str
    """As a sentence would call it."""
    read: Read
    """Reads a file, or a folder that the file lies in."""
    file: str
    """What the file is called; its suffix decides how some read it."""
    forgives: bool = False
    """Whether it shows what can be read instead of refusing: a look at a run that goes on."""

    ends_lines: bool = False
    """Whether it takes a last line without an end for one that was not written."""

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def of_folder(read: Read, **others: str) -> Read:
    """Reader of a folder, whose other files are whole; names take ``__`` for a dot."""

    def read_folder(path: Path) -> Any:
        for name, content in others.items():
            (path.parent / name.replace("__", ".")).write_text(content, encoding="utf-8")
        return read(path.parent)

    return read_folder


# --- JSON and JSON lines -------------------------------------------------------------------------


def _prompts(path: Path) -> Any:
    from resonate_audio.data.prompts import read_prompts

    return read_prompts(path)


def _prompt_set(path: Path) -> Any:
    from resonate_audio.evaluation.clips.prompt_sets import read_prompt_set

    return read_prompt_set(path)


def _tta_bench(path: Path) -> Any:
    from resonate_audio.evaluation.tta_bench.prompts import read_tta_bench

    return read_tta_bench(path)


def _listen_prompts(path: Path) -> Any:
    from resonate_audio.serving.listening.test import read_prompts

    return read_prompts(path)


def _clip_list(path: Path) -> Any:
    from resonate_audio.serving.listening.test import read_clip_list

    return read_clip_list(path)


def _clips(folder: Path) -> Any:
    from resonate_audio.evaluation.clips.folder import read_manifest

    return read_manifest(folder)


def _scores(folder: Path) -> Any:
    from resonate_audio.evaluation.scores.scored import read_scores

    return read_scores(folder)


def _manifest(path: Path) -> Any:
    from resonate_audio.data.manifest import read_manifest

    return read_manifest(path)


def _pairs(path: Path) -> Any:
    from resonate_audio.training.algorithms.pairs import read_pairs

    return read_pairs(path)


def _metrics(path: Path) -> Any:
    from resonate_audio.training.loop.progress import read_metrics

    return read_metrics(path)


def _run(folder: Path) -> Any:
    from resonate_audio.training.reinforce.run_log import read_run

    return read_run(folder)


def _ratings(path: Path) -> Any:
    from resonate_audio.evaluation.people.ratings import read_ratings

    return read_ratings(path)


def _tta_ratings(path: Path) -> Any:
    from resonate_audio.evaluation.people.ratings import read_tta_ratings

    return read_tta_ratings(path)


def _rated_clips(path: Path) -> Any:
    from resonate_audio.evaluation.people.rated_clips import read_rated_clips

    return read_rated_clips(path)


def _values(path: Path) -> Any:
    from resonate_audio.evaluation.people.rated_clips import read_values

    return read_values(path)


def _judge(folder: Path) -> Any:
    from resonate_audio.rewards.small.judge import read_judge_config
    from resonate_audio.rewards.small.two_tower import TwoTowerConfig

    return read_judge_config(TwoTowerConfig, folder)


def _model(folder: Path) -> Any:
    from resonate_audio.model.folder import read_index

    return read_index(folder)


def _shard_index(path: Path) -> Any:
    from resonate_audio.data.shards.read import Shards

    return Shards(path.parent)


def _verified(path: Path) -> Any:
    from resonate_audio.data.shards.write import verify_shards

    return list(verify_shards(path.parent))


def _waveforms(folder: Path) -> Any:
    from resonate_audio.data.manifest import Manifest
    from resonate_audio.data.waveforms import open_waveforms

    (folder / "samples.i16").write_bytes(b"")
    return open_waveforms(folder, Manifest(folder / "m.jsonl", ()), 16_000)


def _table(path: Path) -> Any:
    from resonate_audio.data.corpora import read_table

    return list(read_table(path))


def _corpus(kind: str) -> Read:
    def read(folder: Path) -> Any:
        from resonate_audio.data import corpora
        from resonate_audio.data.sound_files import SoundFiles

        return list(getattr(corpora, kind)(SoundFiles(folder)))

    return read


def _sidecar(folder: Path) -> Any:
    return _corpus("folder")(folder)


def _embedded(path: Path) -> Any:
    from resonate_audio.audio.embedded import parse_recipe

    text = path.read_bytes().decode("utf-8", "replace")
    return parse_recipe('{"resonate_recipe": ' + text + "}", str(path))


def _config(path: Path) -> Any:
    from resonate_audio.core.config import load_config
    from resonate_audio.evaluation.scores.scored import MetricCard

    return load_config(MetricCard, path)


def _items(path: Path) -> Any:
    from resonate_audio.rewards.audio_llm.rubric import read_items

    return read_items(path)


def _track_id(path: Path) -> Any:
    from resonate_audio.training.loop.track import read_id

    return read_id(path)


def _override(path: Path) -> Any:
    from resonate_audio.core.config import apply_overrides

    return apply_overrides({}, [f"field={path.read_bytes().decode('utf-8', 'replace')}"])


def _test(folder: Path) -> Any:
    from resonate_audio.serving.listening.test import open_test

    return open_test(folder)


def _nano_corpus(folder: Path) -> Any:
    from resonate_audio.nano.judges.sounds import read_clips

    return read_clips(folder, "train")


def _known_answer(folder: Path) -> Any:
    from resonate_audio.nano.known_answer import read_known_answer

    return read_known_answer(folder)


def _keys(path: Path) -> Any:
    from resonate_audio.serving.keys import read_keys

    return read_keys(path)


def _sound_list(path: Path) -> Any:
    from resonate_audio.cli.options import Loading, Making, Target
    from resonate_audio.cli.sound_list import read_list

    return read_list(path, Making({}, None, Target(), Loading(), 1, None, ""))


SYSTEM = '{"name": "a", "source": "b"}'
SUMMARY = '{"system": "a"}'
TRUE_SOUND = "dog.wav"

JSON_READERS = [
    Member("keys of a server", _keys, "keys.json"),
    Member("prompts of JSON lines", _prompts, "p.jsonl"),
    Member("a list of sounds of JSON lines", _sound_list, "s.jsonl"),
    Member("prompts of JSON", _prompts, "p.json"),
    Member("a prompt set of JSON lines", _prompt_set, "p.jsonl"),
    Member("a prompt set of JSON", _prompt_set, "p.json"),
    Member("a file of TTA-Bench", _tta_bench, "acc_prompt.json"),
    Member("prompts of a listening test", _listen_prompts, "p.jsonl"),
    Member("clips of a listening test", _clip_list, "c.jsonl"),
    Member("what a system is", of_folder(_clips), "system.json"),
    Member(
        "clips of a system",
        of_folder(_clips, system__json=SYSTEM),
        "manifest.jsonl",
        ends_lines=True,
    ),
    Member("scores of a system", of_folder(_scores, scores__jsonl=""), "scores.json"),
    Member("scores of clips", of_folder(_scores, scores__json=SUMMARY), "scores.jsonl"),
    Member("a manifest", _manifest, "m.jsonl"),
    Member("pairs", _pairs, "pairs.jsonl"),
    Member("metrics of a training", _metrics, "metrics.jsonl", ends_lines=True),
    Member("metrics of a run", of_folder(_run), "metrics.jsonl", forgives=True),
    Member("takes of a run", of_folder(_run), "takes.jsonl", forgives=True),
    Member("ratings as JSON lines", _ratings, "r.jsonl"),
    Member("ratings of TTA-Bench as JSON lines", _tta_ratings, "r.jsonl"),
    Member("rated clips as JSON lines", _rated_clips, "r.jsonl"),
    Member("values of metrics as JSON lines", _values, "v.jsonl"),
    Member("a judge's configuration", of_folder(_judge), "config.json"),
    Member("a model's index", of_folder(_model), "model_index.json"),
    Member("an index of shards", _shard_index, "index.json"),
    Member("an index of shards to be verified", _verified, "index.json"),
    Member("a cache of sounds", of_folder(_waveforms), "index.json"),
    Member("a corpus' table of JSON lines", _table, "t.jsonl"),
    Member("a corpus' table of JSON", _table, "t.json"),
    Member("a caption beside a sound", of_folder(_sidecar, dog__wav=""), "dog.json"),
    Member("metadata of a folder", of_folder(_sidecar, dog__wav=""), "metadata.jsonl"),
    Member("the corpus of nano", of_folder(_nano_corpus), "manifest.jsonl"),
    Member("items of a rubric", _items, "items.jsonl"),
    Member("a recipe in a sound", _embedded, "recipe.txt"),
]

YAML_READERS = [
    Member("a recipe", _config, "r.yaml"),
    Member("an option --set", _override, "value.txt"),
    Member("a listening test", of_folder(_test), "test.yaml"),
    Member("nano's known answer", of_folder(_known_answer), "known_answer.json"),
    Member("the recipe of a run", of_folder(_run), "recipe.yaml", forgives=True),
]

CSV_READERS = [
    Member("prompts of CSV", _prompts, "p.csv"),
    Member("a list of sounds of CSV", _sound_list, "s.csv"),
    Member("prompts of TSV", _prompts, "p.tsv"),
    Member("prompts of a listening test of CSV", _listen_prompts, "p.csv"),
    Member("clips of a listening test of CSV", _clip_list, "c.csv"),
    Member("ratings", _ratings, "r.csv"),
    Member("ratings of TTA-Bench", _tta_ratings, "r.csv"),
    Member("rated clips", _rated_clips, "r.csv"),
    Member("values of metrics", _values, "v.csv"),
    Member("a corpus' table of CSV", _table, "t.csv"),
    Member("a corpus' table of TSV", _table, "t.tsv"),
    Member("metadata of a folder of CSV", of_folder(_sidecar, dog__wav=""), "metadata.csv"),
    Member("AudioCaps", of_folder(_corpus("audiocaps")), "train.csv", forgives=True),
    Member("AudioSet", of_folder(_corpus("audioset")), "captions.csv", forgives=True),
    Member("Clotho", of_folder(_corpus("clotho")), "clotho_captions_development.csv"),
    Member("VGGSound", of_folder(_corpus("vggsound")), "vggsound.csv"),
    Member("Audiostock", of_folder(_corpus("audiostock")), "a.csv", forgives=True),
    Member("ESC-50", of_folder(_corpus("esc50")), "esc50.csv", forgives=True),
]

TEXT_READERS = [
    Member("prompts of text", _prompts, "p.txt"),
    Member("prompts of a file without suffix", _prompts, "prompts"),
    Member("a run's id at its tracker", _track_id, "track-id.txt"),
    Member("a caption of text", of_folder(_sidecar, dog__wav=""), "dog.txt", forgives=True),
]

# --- sounds, numbers, weights --------------------------------------------------------------------


def _audio(path: Path) -> Any:
    from resonate_audio.audio.io import read_audio

    return read_audio(path)


def _audio_at_rate(path: Path) -> Any:
    from resonate_audio.audio.io import read_audio

    return read_audio(path, 44_100)


def _recipe(path: Path) -> Any:
    from resonate_audio.audio.io import read_recipe

    return read_recipe(path)


def _samples(path: Path) -> Any:
    from resonate_audio.evaluation.scores.sounds import read_samples

    return read_samples(path)


def _length(path: Path) -> Any:
    from resonate_audio.audio.decoding import read_length

    return read_length(path)


def _upload(path: Path) -> Any:
    from resonate_audio.serving.uploads import decode_upload

    return decode_upload(path.read_bytes(), path.name, 600.0)


def _form(path: Path) -> Any:
    from resonate_audio.serving.listening import app

    data = path.read_bytes()
    app.count_samples(data, path.name)
    return app._given_clip("a", path.name, data, {})


def _probe(path: Path) -> Any:
    from resonate_audio.serving.listening.test import read_probe

    return read_probe(f"{path}=1,2")


def _systems(path: Path) -> Any:
    from resonate_audio.serving.listening.test import read_systems

    return read_systems({"a": path.parent})


def _decoded_clip(path: Path) -> Any:
    from resonate_audio.data.manifest import Clip, Manifest, decode_clips

    clip = Clip(audio_id="a", audio_path=path.name, caption="a dog")
    [(_, found)] = decode_clips(Manifest(path.parent / "m.jsonl", (clip,)), 16_000)
    return found


def _inspected(path: Path) -> Any:
    from resonate_audio.data.inspection import CheckConfig, inspect_file
    from resonate_audio.data.manifest import Clip

    clip = Clip(audio_id="a", audio_path=path.name, caption="a dog")
    return list(inspect_file(path.with_name("clips.jsonl"), [clip], CheckConfig()))


def _shard_member(path: Path) -> Any:
    from resonate_audio.data.shards.read import decode_audio

    return decode_audio({"flac": path.read_bytes()})


def _paired_sound(path: Path) -> Any:
    from resonate_audio.training.algorithms.pairs import read_sound

    return read_sound(path, 16_000)


SOUND_READERS = [
    Member("a sound", _audio, "a.wav"),
    Member("a sound at another rate", _audio_at_rate, "a.wav"),
    Member("a sound's recipe", _recipe, "a.wav"),
    Member("samples to be scored", _samples, "a.wav"),
    Member("a sound's length", _length, "a.wav"),
    Member("an upload to the judge", _upload, "a.wav"),
    Member("an upload to a listening test", _form, "a.wav"),
    Member("a probe of a listening test", _probe, "a.wav"),
    Member("sounds of a listening test", _systems, "a.wav"),
    Member("a clip of a manifest", _decoded_clip, "a.wav", forgives=True),
    Member("a clip that is checked", _inspected, "a.wav", forgives=True),
    Member("a clip of a shard", _shard_member, "a.wav"),
    Member("a sound of a pair", _paired_sound, "a.wav"),
]
IN_MEMORY = {"an upload to the judge", "an upload to a listening test", "a clip of a shard"}
"""Readers that are handed bytes: what lies on the disk is somebody else's care."""


def _weights(path: Path) -> Any:
    from resonate_audio.model.checkpoint import read_weights

    return read_weights(path)


def _official(path: Path) -> Any:
    from resonate_audio.model.official.convert import read_official

    return read_official(path)


def _tokenizer(path: Path) -> Any:
    from resonate_audio.model.checkpoint import read_tokenizer

    return read_tokenizer(path)


def _counted_tokens(path: Path) -> Any:
    from resonate_audio.data.inspection import count_tokens

    return count_tokens(path, "a dog")


def _checkpoint(path: Path) -> Any:
    from resonate_audio.training.loop.checkpoint import load_checkpoint

    return load_checkpoint(path)


def _golden(path: Path) -> Any:
    from resonate_audio.parity.check import read_golden

    return read_golden(path)


def _counted_weights(path: Path) -> Any:
    from resonate_audio.serving.sounds.shelf import count_weights

    return count_weights(path)


def _array(path: Path) -> Any:
    from resonate_audio.core.documents.arrays import read_array

    return read_array(path, str(path))


def _array_in_memory(path: Path) -> Any:
    from resonate_audio.core.documents.arrays import read_array

    return read_array(path.read_bytes(), str(path))


def _store(path: Path) -> Any:
    from resonate_audio.evaluation.scores.store import Store

    return Store(path)


WEIGHT_READERS = [
    Member("weights", _weights, "w.safetensors"),
    Member("a pickle of weights", _weights, "w.pth"),
    Member("official weights", _official, "w.pth"),
    Member("a tokenizer", _tokenizer, "tokenizer.json"),
    Member("a tokenizer that counts", _counted_tokens, "tokenizer.json"),
    Member("a checkpoint of a run", _checkpoint, "step-1.safetensors"),
    Member("a golden file", _golden, "g.safetensors"),
    Member("weights that are counted", _counted_weights, "w.safetensors"),
    Member("an array", _array, "a.npy"),
]
TEXTS = JSON_READERS + YAML_READERS + CSV_READERS + TEXT_READERS
FILES = TEXTS + SOUND_READERS + WEIGHT_READERS


def try_reading(member: Member, path: Path) -> str | None:
    """What the reader says against a file in one line; None if it takes it.

    Any other error than ours passes, and fails the test.
    """
    try:
        member.read(path)
    except ResonateError as error:
        message = str(error)
        assert not any(mark in message for mark in MARKS_OF_RAW_ERRORS), message
        assert len(message) < 2_000, f"a message of {len(message)} letters"
        message.encode("utf-8")  # so that it can be printed
        return message
    return None


def sound_at(path: Path, seconds: float = 0.5) -> Path:
    """A true sound."""
    from resonate_audio.audio.io import write_audio
    from resonate_audio.core.types import Audio

    times = np.arange(int(16_000 * seconds)) / 16_000
    write_audio(path, Audio((0.3 * np.sin(2765 * times)).astype(np.float32), 16_000), True)
    return path


def fresh(folder: Path) -> Iterator[Path]:
    """Empty folders, one after the other."""
    number = 0
    while True:
        number += 1
        place = folder / str(number)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        yield place
