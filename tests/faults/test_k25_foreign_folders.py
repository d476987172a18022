"""K25: folders and files that came from elsewhere. Every folder that is served or read by a list of
names × names that lead out of it, files of another kind, one that is broken among whole ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import error_of
from served import SERVERS, Served, make_listening, make_run, serving

from resonate_audio.audio.io import write_audio
from resonate_audio.cli.main import run as resonate
from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError, ResonateError
from resonate_audio.core.files import file_inside
from resonate_audio.core.types import Audio
from resonate_audio.data.latent_cache import LatentIndex
from resonate_audio.data.shards.write import ShardEntry
from resonate_audio.serving.listening.test import open_test
from resonate_audio.serving.runs import list_runs, open_run, take_file
from resonate_audio.training.reinforce.run_log import read_run

SECRET = "the secret of somebody else"
OUTSIDE = ["../secret.wav", "../../secret.wav", "/etc/passwd", "takes/../../secret.wav", "..", "",
           "takes", "takes/\0.wav", "a" * 5000 + ".wav", "takes/\ud800.wav"]  # fmt: skip
OTHER_KINDS = {
    "page.html": b"<script>alert(1)</script>",
    "page.svg": b"<svg onload='alert(1)'/>",
    "code.js": b"alert(1)",
    "notes.txt": SECRET.encode(),
    "recipe.yaml": b"model: nano",
    "noend": b"x",
    "page.html.wav": b"<script>alert(1)</script>",
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of runs beside a secret, with links that lead to it."""
    (tmp_path / "secret.wav").write_text(SECRET)
    return tmp_path


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_take_that_names_no_sound_of_its_run_is_not_heard(outside: Path, name: str) -> None:
    make_run(outside / "runs" / "one", [{"step": 2, "file": name}])
    id = list_runs(outside / "runs")[0].id
    takes = open_run(outside / "runs", id).takes
    assert [take.step for take in takes if take.has_sound] == [1]
    for asked in (name, *(take.id for take in takes if take.step == 2)):
        with pytest.raises(ResonateError, match="no sound"):
            take_file(outside / "runs", id, asked)


@pytest.mark.parametrize("name", ["secret.wav", "takes"])
def test_a_link_that_leads_out_of_a_run_is_not_followed(outside: Path, name: str) -> None:
    make_run(outside / "runs" / "one", [{"step": 2, "file": "link/secret.wav"}])
    (outside / "runs" / "one" / "link").symlink_to(outside)
    assert [take.file for take in read_run(outside / "runs" / "one").takes] == ["", "takes/1.wav"]


def test_a_file_is_inside_only_if_every_link_on_the_way_is(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "out.wav").write_bytes(b"")
    (folder / "deep" / "in.wav").write_bytes(b"")
    (folder / "to-in.wav").symlink_to(folder / "deep" / "in.wav")
    (folder / "to-out.wav").symlink_to(tmp_path / "out.wav")
    (folder / "circle").symlink_to(folder / "circle")
    names = ("deep/in.wav", "to-in.wav", "to-out.wav", "circle", "deep", "none")
    assert [name for name in names if file_inside(folder, name)] == ["deep/in.wav", "to-in.wav"]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """A server over runs and tests of which some are broken."""
    place = tmp_path_factory.mktemp("foreign")
    home, runs = place / "home", place / "runs"
    make_listening(home)
    make_run(runs / "whole", [{"step": 2 + n, "file": name} for n, name in enumerate(OTHER_KINDS)])
    for name, data in OTHER_KINDS.items():
        (runs / "whole" / name).write_bytes(data)
    for name, spoil in RUNS.items():
        make_run(runs / name)
        spoil(runs / name)
    for name, spoil in TESTS.items():
        shutil.copytree(home / "listening" / "trees", home / "listening" / name)
        spoil(home / "listening" / name)
    command = [part.format(home=home, runs=runs) for part in SERVERS["sounds"]]
    with serving(place / "log", *command) as server:
        yield server, place


def appended(line: dict[str, Any] | str, name: str = "takes.jsonl") -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        text = line if isinstance(line, str) else json.dumps(line)
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    return spoil


def written(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def folder_for(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return spoil


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        text = (folder / "test.yaml").read_text(encoding="utf-8")
        assert old in text
        (folder / "test.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")

    return spoil


def link_out(folder: Path) -> None:
    clip = next((folder / "clips").iterdir())
    clip.unlink()
    clip.symlink_to("/etc/hostname")


def unreadable(folder: Path) -> None:
    (folder / "deeper").mkdir()
    (folder / "deeper").chmod(0)


TAKE = {"step": 3, "prompt": "x", "take": 0, "kind": "best", "reward": 1.0, "file": "takes/1.wav"}
RUNS: dict[str, Callable[[Path], None]] = {
    "nan-reward": appended('{"step": 3, "reward": NaN, "prompt": "x"}'),
    "infinite-part": appended('{"step": 3, "reward": 1.0, "parts": {"a": Infinity, "b": NaN}}'),
    "huge-reward": appended('{"step": 3, "reward": 1' + "0" * 400 + "}"),
    "huge-step": appended('{"step": 1' + "0" * 30 + ', "reward": 1.0}'),
    "huge-number": appended('{"step": 3, "loss": 1' + "0" * 400 + "}", "metrics.jsonl"),
    "null-fields": appended(TAKE | {"prompt": None, "kind": None, "file": None, "parts": None}),
    "odd-fields": appended(TAKE | {"prompt": [], "kind": {}, "file": 3, "parts": [], "take": -1}),
    "surrogate": appended('{"step": 3, "reward": 1.0, "prompt": "\\ud800", "kind": "\\ud800"}'),
    "deep": appended("[" * 50_000, "metrics.jsonl"),
    "odd-recipe": written("recipe.yaml", b"model: {a: [1, 2001-13-45]}\nx: &a {b: *a}\n"),
    "no-text": written("recipe.yaml", b"\xff\xfe\x00"),
    "folder-for-takes": folder_for("takes.jsonl"),
    "folder-for-metrics": folder_for("metrics.jsonl"),
    "unreadable-folder": unreadable,
}  # fmt: skip
TESTS: dict[str, Callable[[Path], None]] = {
    "no-yaml": written("test.yaml", b"{"),
    "null-yaml": written("test.yaml", b"null"),
    "no-text": written("test.yaml", b"\xff\xfe\x00"),
    "odd-yaml": written("test.yaml", b"title: 2001-13-45\nclips: &a [*a]\n"),
    "path-for-id": replaced("- id: ", "- id: ../../../../secret  # "),
    "absolute-id": replaced("- id: ", "- id: /etc/hostname  # "),
    "lost-clip": lambda folder: next((folder / "clips").iterdir()).unlink(),
    "linked-clip": link_out,
    "damaged-answers": written("answers.sqlite", b"x" * 5000),
    "foreign-pages": lambda folder: spoil_trials(folder),
}


def spoil_trials(folder: Path) -> None:
    """Pages of a rater that name a clip of another test."""
    import sqlite3

    with sqlite3.connect(folder / "answers.sqlite") as base:
        base.execute('UPDATE raters SET trials = \'[{"clips": ["../x"], "axes": ["OVL"]}]\'')
    base.close()


def test_nothing_but_sounds_is_served_of_a_run(studio: tuple[Served, Path]) -> None:
    server, _ = studio
    with server.client() as client:
        [whole] = [run for run in client.get("/v1/runs").json()["data"] if run["name"] == "whole"]
        takes = client.get(f"/v1/runs/{whole['id']}").json()["takes"]
        assert len(takes) == 1 + len(OTHER_KINDS)
        for take in takes:
            answer = client.get(f"/v1/runs/{whole['id']}/takes/{take['id'] or 'none'}")
            assert (answer.status_code == 200) == take["has_sound"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            if answer.status_code == 200:
                assert answer.headers["content-type"] == "audio/wav"
            else:
                assert error_of(answer)["message"] == "take: there is no such sound"
                assert answer.status_code == 404


def test_a_broken_run_hides_no_other(studio: tuple[Served, Path]) -> None:
    server, _ = studio
    with server.client() as client:
        listed = client.get("/v1/runs")
        assert listed.status_code == 200
        names = {run["name"]: run for run in listed.json()["data"]}
        assert set(names) == {"whole", *RUNS}
        for name, run in names.items():
            answer = client.get(f"/v1/runs/{run['id']}")
            assert answer.status_code == (200 if run["problem"] is None else 409), name
    assert names["whole"]["problem"] is None
    assert "Traceback" not in server.said


@pytest.mark.parametrize("name", sorted(RUNS))
def test_what_can_be_read_of_a_broken_run_is_told(tmp_path: Path, name: str) -> None:
    make_run(tmp_path / "one")
    RUNS[name](tmp_path / "one")
    [head] = list_runs(tmp_path)
    if head.problem is None:
        told = json.loads(open_run(tmp_path, head.id).model_dump_json())
        assert "None" not in json.dumps(told["takes"])


def test_a_broken_listening_test_hides_no_other(studio: tuple[Served, Path]) -> None:
    server, place = studio
    with server.client() as client:
        listed = client.get("/v1/listening/tests")
        assert listed.status_code == 200
        problems = {one["name"]: one.get("problem") for one in listed.json()["data"]}
        assert set(problems) == {"trees", *TESTS}
        assert problems["trees"] is None
        for name in TESTS:
            for path in (f"tests/{name}", f"tests/{name}/results", f"tests/{name}/files/pairs.zip"):
                answer = client.get(f"/v1/listening/{path}")
                assert answer.status_code in (200, 409, 422), (name, answer.text)
                assert str(place) not in answer.text
            answer = client.post(f"/v1/listening/tests/{name}/raters")
            assert answer.status_code in (201, 409), (name, answer.text)
    assert "Traceback" not in server.said, server.said


def test_a_listening_test_serves_no_file_from_elsewhere(studio: tuple[Served, Path]) -> None:
    _, place = studio
    for name in ("path-for-id", "absolute-id", "linked-clip"):
        with pytest.raises(ResonateError, match=r"id|missing"):
            open_test(place / "home" / "listening" / name)


INDEXES: dict[str, Callable[[str], object]] = {
    "a shard of an index": lambda name: parse_config(
        ShardEntry,
        {"name": name, "num_samples": 1, "num_bytes": 1, "sha256": "", "seconds": 1.0},
        "index.json",
    ),
    "a window of latents": lambda name: parse_config(
        LatentIndex, {"windows": [name]}, "latents.json"
    ),
}
"""Every index that names files beside itself."""


@pytest.mark.parametrize("index", sorted(INDEXES))
@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "a\0b", ""])
def test_no_index_names_a_file_beside_its_folder(index: str, name: str) -> None:
    with pytest.raises(ConfigError, match="inside of this folder"):
        INDEXES[index](name)


@pytest.mark.parametrize("index", sorted(INDEXES))
def test_an_index_names_files_of_its_folder(index: str) -> None:
    INDEXES[index]("shard-00000.tar")


def test_a_sound_does_not_make_its_model_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses
    import socket

    from resonate_audio import Resonate

    nano = Resonate.from_pretrained("nano")
    [made] = nano.generate("rain", duration_s=0.5, num_inference_steps=1)
    assert made.recipe is not None
    recipe = dataclasses.replace(made.recipe, model="some-owner/some-name")
    write_audio(tmp_path / "x.wav", Audio(made.samples, made.sample_rate_hz, recipe))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert resonate(["replay", str(tmp_path / "x.wav")]) == 2
    said = capsys.readouterr().err
    assert "made by some-owner/some-name, which is not on this machine" in said
    assert "--model some-owner/some-name" in said
