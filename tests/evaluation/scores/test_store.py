"""Scores are kept by what was heard and asked; broken and newer files are told apart."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from resonate_audio.core.errors import InputError
from resonate_audio.evaluation.scores.store import SCHEMA_VERSION, Sound, Store, pcm_sha256


def test_what_was_kept_comes_back_after_reopening(tmp_path: Path) -> None:
    sound = Sound(pcm_sha256="ab", sample_rate_hz=16_000, num_samples=100, peak=0.5)
    with Store(tmp_path / "s.db") as store:
        store.put_scores("m1", {"x": {"total": 0.25}, "y": {"total": 0.5}})
        store.put_sounds({"file": sound})
        store.put_hashes({"p": "10 20"}, {"p": "hash"})
    with Store(tmp_path / "s.db") as store:
        assert store.scores("m1", ["x", "y", "z"]) == {"x": {"total": 0.25}, "y": {"total": 0.5}}
        assert store.scores("m2", ["x"]) == {}
        assert store.sounds(["file", "other"]) == {"file": sound}
        assert store.hashes({"p": "10 20"}) == {"p": "hash"}
        assert store.hashes({"p": "10 21"}) == {}


def test_many_addresses_are_asked_for_at_once(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        store.put_scores("m", {str(n): {"total": float(n)} for n in range(2000)})
        assert len(store.scores("m", [str(n) for n in range(2500)])) == 2000


def test_an_address_is_of_sound_rate_and_prompt() -> None:
    samples = np.arange(4, dtype=np.float32)
    one = Sound(pcm_sha256(samples), 16_000, 4, 1.0)
    assert one.address("rain") == Sound(pcm_sha256(samples.copy()), 16_000, 4, 1.0).address("rain")
    others = {
        one.address("rain"),
        one.address("wind"),
        Sound(one.pcm_sha256, 44_100, 4, 1.0).address("rain"),
        Sound(pcm_sha256(samples + 1), 16_000, 4, 1.0).address("rain"),
    }
    assert len(others) == 4


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        store._db.execute(
            "CREATE TRIGGER no BEFORE INSERT ON score WHEN NEW.address = 'y' BEGIN "
            "SELECT RAISE(ABORT, 'not this one'); END"
        )
        with pytest.raises(InputError, match="not this one"):
            store.put_scores("m", {"x": {"total": 1.0}, "y": {"total": 1.0}})
        assert store.scores("m", ["x", "y"]) == {}
        store.put_scores("m", {"x": {"total": 2.0}})
        assert store.scores("m", ["x"]) == {"x": {"total": 2.0}}


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "s.db").close()
    database = sqlite3.connect(tmp_path / "s.db")
    database.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    database.close()
    with pytest.raises(InputError, match=f"version {SCHEMA_VERSION + 1}, written by a newer"):
        Store(tmp_path / "s.db")


def test_another_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_text("scores of last week, " * 100)
    with pytest.raises(InputError, match="no store of scores, or a damaged one"):
        Store(tmp_path / "s.db")
