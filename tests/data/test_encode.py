import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from shard_corpus import RATE_HZ, write_sounds

from resonate_audio.audio.io import read_audio, write_audio
from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.cli.data import encode as data_encode
from resonate_audio.cli.data import shard as data_shard
from resonate_audio.core.errors import ManifestError, ResonateError, ShardError
from resonate_audio.data.encode import (
    begin,
    describe_settings,
    encode_manifest,
    plan_jobs,
    run_jobs,
)
from resonate_audio.data.latents import latent_statistics
from resonate_audio.data.shards.read import (
    LatentShards,
    Shards,
    decode_audio,
    decode_latents,
)
from resonate_audio.data.shards.workers import AudioConfig, EncodeConfig
from resonate_audio.data.shards.write import verify_shards
from resonate_audio.model.folder import read_networks

COMMAND = """
import sys, typer
from resonate_audio.cli.data import encode as data_encode, shard as data_shard
from resonate_audio.core.errors import ResonateError
app = typer.Typer()
for command in (data_encode.encode, data_shard.shard, data_shard.shards):
    app.command()(command)
try:
    sys.exit(app(sys.argv[1:], standalone_mode=False))
except ResonateError as error:
    sys.stderr.write(f"resonate: {error}\\n")
    sys.exit(2)
"""
"""`resonate data …` as a process of its own."""
DURATIONS_S = (0.2, 0.4, 1.3, 0.3, 0.5)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", COMMAND, *map(str, arguments)]


def config(model: Path, clips_per_shard: int = 2) -> EncodeConfig:
    return EncodeConfig(model=str(model), window_s=(0.25, 0.5), clips_per_shard=clips_per_shard)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def ids(folder: Path) -> list[str]:
    shards = Shards(folder)
    _, names = shards.read(
        np.arange(len(shards.samples)), lambda members: json.loads(members["json"])["audio_id"]
    )
    return names


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_sounds(tmp_path, DURATIONS_S)


def test_a_manifest_becomes_latents_with_the_windows_that_hold_them(
    tmp_path: Path, manifest: Path, tiny_model: Path
) -> None:
    index = encode_manifest(manifest, tmp_path / "out", config(tiny_model))
    assert [entry.num_samples for entry in index.shards] == [2, 4, 1]  # 1.3 s is three windows
    assert list(verify_shards(tmp_path / "out")) == []
    frames = Shards(tmp_path / "out").frames
    assert sorted(set(frames)) == list(index.settings.latents.window_frames)  # type: ignore[union-attr]
    assert index.seconds == pytest.approx(0.2 + 0.4 + 3 * 0.5 + 0.3 + 0.5, abs=0.1)
    assert not (tmp_path / "out" / "parts").exists()


def test_what_is_stored_is_what_the_vae_says(
    tmp_path: Path, manifest: Path, tiny_model: Path
) -> None:
    encode_manifest(manifest, tmp_path / "out", config(tiny_model))
    shards = Shards(tmp_path / "out")
    (sample,) = shards.read(np.array([1]), decode_latents)[1]  # clip-0 and clip-1 share a shard
    networks = read_networks(tiny_model)
    num_samples = shards.frames[1] * networks.config.frame_samples
    wave = np.zeros(num_samples, np.float32)
    heard = read_audio(tmp_path / f"{ids(tmp_path / 'out')[1].removeprefix('clip-')}.wav").samples
    wave[: len(heard)] = heard
    with torch.no_grad():
        mel = MelFrontEnd(networks.config.mel)(torch.from_numpy(wave)[None])
        expected = networks.vae.encode(mel)
    torch.testing.assert_close(sample.mean.float(), expected.mean[0], atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(sample.std.float(), expected.std[0], atol=5e-3, rtol=5e-3)


def test_every_caption_has_its_features(tmp_path: Path, manifest: Path, tiny_model: Path) -> None:
    encode_manifest(manifest, tmp_path / "out", config(tiny_model))
    shards = LatentShards(tmp_path / "out")
    names = ids(tmp_path / "out")
    _, batch = shards.read(np.array([names.index("clip-1")]))
    assert batch is not None
    assert batch.buckets[0].num_captions.tolist() == [2]  # "dog" and "rain wind"
    features = batch.captions.features(batch.buckets[0].captions[0])
    assert features.tokens[0, 3:].abs().max() == 0  # [CLS] dog [SEP]
    assert features.tokens[1, 3].abs().max() > 0  # [CLS] rain wind [SEP]
    torch.testing.assert_close(
        features.pooled[0], features.tokens[0, :3].mean(0), atol=2e-3, rtol=2e-3
    )


def test_the_index_knows_the_statistics_of_all_latents(
    tmp_path: Path, manifest: Path, tiny_model: Path
) -> None:
    encode_manifest(manifest, tmp_path / "out", config(tiny_model))
    shards = LatentShards(tmp_path / "out")
    frames = shards.shards.frames
    sets = [shards.read(np.flatnonzero(frames == length))[1] for length in np.unique(frames)]
    mean, std = latent_statistics(tuple(part.buckets[0] for part in sets if part is not None))
    torch.testing.assert_close(shards.statistics(), (mean, std))


def test_sounds_come_back_from_shards_of_audio(tmp_path: Path, manifest: Path) -> None:
    audio = AudioConfig(sample_rate_hz=RATE_HZ, clips_per_shard=3)
    index = encode_manifest(manifest, tmp_path / "out", audio)
    assert index.seconds == pytest.approx(sum(DURATIONS_S))
    shards = Shards(tmp_path / "out")
    (wave,) = shards.read(np.array([4]), decode_audio)[1]
    original = read_audio(tmp_path / "4.wav").samples
    assert np.abs(wave - original).max() < 1e-4


def test_shards_of_audio_are_no_latents(tmp_path: Path, manifest: Path) -> None:
    encode_manifest(manifest, tmp_path / "out", AudioConfig(sample_rate_hz=RATE_HZ))
    with pytest.raises(ShardError, match="holds audio; `resonate data encode`"):
        LatentShards(tmp_path / "out")


def test_clips_that_cannot_be_used_are_named_and_left_out(tmp_path: Path, manifest: Path) -> None:
    (tmp_path / "1.wav").write_bytes(b"no sound")
    (tmp_path / "2.wav").unlink()
    index = encode_manifest(manifest, tmp_path / "out", AudioConfig(clips_per_shard=2))
    assert [name for name, _ in index.broken] == ["clip-1", "clip-2"]
    assert ids(tmp_path / "out") == ["clip-0", "clip-3", "clip-4"]


def test_a_manifest_of_nothing_usable_is_an_error(tmp_path: Path, manifest: Path) -> None:
    for number in range(len(DURATIONS_S)):
        (tmp_path / f"{number}.wav").unlink()
    with pytest.raises(ShardError, match=r"none of the 5 clips can be used; the first, clip-0"):
        encode_manifest(manifest, tmp_path / "out", AudioConfig())


def test_a_broken_line_is_found_before_anything_is_encoded(tmp_path: Path, manifest: Path) -> None:
    with manifest.open("a") as file:
        file.write('{"audio_id": "clip-9"}\n')
    with pytest.raises(ManifestError, match=r"manifest\.jsonl:6: audio_path"):
        encode_manifest(manifest, tmp_path / "out", AudioConfig())
    assert not (tmp_path / "out").exists()


def test_a_name_that_occurs_twice_is_an_error(tmp_path: Path, manifest: Path) -> None:
    manifest.write_text(manifest.read_text() * 2)
    with pytest.raises(ManifestError, match=r":6: audio_id clip-0 was used before"):
        plan_jobs(manifest, tmp_path / "out", 2)


def test_jobs_read_the_lines_that_they_were_made_of(tmp_path: Path, manifest: Path) -> None:
    text = manifest.read_text(encoding="utf-8").replace("dog", "hündin").replace("\n", "\n\n")
    manifest.write_bytes(b"\xef\xbb\xbf" + text.encode())
    jobs, _ = plan_jobs(manifest, tmp_path / "out", 2)
    names = [[clip.audio_id for clip in job.clips()] for job in jobs]
    assert names == [["clip-0", "clip-1"], ["clip-2", "clip-3"], ["clip-4"]]


def test_a_second_call_finds_everything_done(tmp_path: Path, manifest: Path) -> None:
    first = encode_manifest(manifest, tmp_path / "out", AudioConfig())
    said: list[str] = []
    again = encode_manifest(manifest, tmp_path / "out", AudioConfig(), say=said.append)
    assert again == first
    assert said == [f"{tmp_path / 'out'}: complete already, 5 samples"]


def test_other_settings_do_not_mix_with_what_is_there(
    tmp_path: Path, manifest: Path, tiny_model: Path
) -> None:
    encode_manifest(manifest, tmp_path / "out", config(tiny_model))
    other = EncodeConfig(model=str(tiny_model), window_s=(1.0,), clips_per_shard=2)
    with pytest.raises(ShardError, match=r"were made with window_frames"):
        encode_manifest(manifest, tmp_path / "out", other)


@pytest.mark.parametrize("limit", [9000, 300])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    tmp_path: Path, manifest: Path, limit: int
) -> None:
    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    arguments = ("shard", manifest, "-o", tmp_path / "out", "--clips-per-shard", 2)
    done = subprocess.run(
        command(*arguments),
        preexec_fn=no_large_files,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("resonate: ")]
    assert "cannot write it (File too large)" in line
    assert "Traceback" not in done.stderr
    left = [name for name in digests(tmp_path / "out") if ".part." in name]
    assert left == []
    for folder in ("out", "whole"):
        encode_manifest(manifest, tmp_path / folder, AudioConfig(clips_per_shard=2))
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_killed_encoding_goes_on_to_the_same_bytes(
    tmp_path: Path, manifest: Path, tiny_model: Path
) -> None:
    encode_manifest(manifest, tmp_path / "whole", config(tiny_model, clips_per_shard=1))
    arguments = ("encode", manifest, "-o", tmp_path / "out", "--model", tiny_model)
    arguments += ("--windows", "0.25,0.5", "--clips-per-shard", "1")
    with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("shard 0 (1 of 5)")
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "out" / "index.json").exists()
    (tmp_path / "out" / ".shard-000003.99.part.tar").write_bytes(b"left by the killed process")
    said: list[str] = []
    encode_manifest(manifest, tmp_path / "out", config(tiny_model, 1), say=said.append)
    assert "of 5 shards are there already" in said[0]
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_an_encoding_goes_on_with_sounds_that_changed_and_no_others(
    tmp_path: Path, manifest: Path
) -> None:
    settings, said = AudioConfig(sample_rate_hz=RATE_HZ, clips_per_shard=1), list[str]()
    jobs, sha256 = plan_jobs(manifest, tmp_path / "out", 1)
    begin(tmp_path / "out", describe_settings(settings, sha256))
    list(run_jobs(jobs[:3], settings, None))  # and then it was stopped
    names = [json.loads(line)["audio_path"] for line in manifest.read_text().splitlines()]
    changed, touched = tmp_path / names[0], tmp_path / names[1]
    other = read_audio(changed)
    write_audio(changed, replace(other, samples=-other.samples), overwrite=True)
    os.utime(touched, (1, 1))
    encode_manifest(manifest, tmp_path / "out", settings, say=said.append)
    encode_manifest(manifest, tmp_path / "whole", settings)
    assert [line for line in said if "sounds of it changed" in line] == [said[0]]
    assert said[0].startswith("shard-000000.tar (")
    assert said[1] == "2 of 5 shards are there already"
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("encode", "no.jsonl", "-o", "out"), "no.jsonl: cannot read it"),
        (("encode", "m.jsonl", "-o", "out", "--workers", "2"), "--workers: needs --ray"),
        (("encode", "m.jsonl", "-o", "out", "--windows", "a"), "--windows a: expected seconds"),
        (
            ("encode", "m.jsonl", "-o", "out", "--windows", "-1"),
            "--windows -1: expected 0.1 s or more",
        ),
        (("encode", "m.jsonl", "-o", "out", "--model", "nobody"), "nobody: no such model"),
        (("shards", "nowhere"), "nowhere/index.json: cannot read it"),
        (("shards", "http://x", "--verify"), "http://x is no folder"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sounds(tmp_path, [0.2]).rename("m.jsonl")
    app = typer.Typer()
    for function in (data_encode.encode, data_shard.shard, data_shard.shards):
        app.command()(function)
    with pytest.raises(ResonateError) as caught:
        app(list(arguments), standalone_mode=False)
    assert message in str(caught.value)


def test_the_command_says_what_shards_hold_and_whether_they_are_whole(
    tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode_manifest(manifest, tmp_path / "out", AudioConfig(clips_per_shard=3))
    data_shard.shards(str(tmp_path / "out"), verify=True)
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["all", "5"]
    path = tmp_path / "out" / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(typer.Exit) as ended:
        data_shard.shards(str(tmp_path / "out"), verify=True)
    assert ended.value.exit_code == 1
    assert "shard-000001.tar: its SHA-256" in capsys.readouterr().out
