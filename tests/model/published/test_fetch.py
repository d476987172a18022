"""Published models against a hub on loopback, in order and out of order."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loopback_hub import Fault, Hub, use_hub, variables
from published_files import FLOW, MEAN_FLOW, PLAIN_FLOW, POOLED_DIM, flow_state, saved
from safetensors.torch import load_file
from small_disk import fill, small_disk

from resonate_audio.core.errors import (
    CheckpointError,
    DiskFullError,
    ModelNotFoundError,
    OutputError,
)
from resonate_audio.model.folder import is_model_folder, read_config, read_networks
from resonate_audio.model.hub import find_model
from resonate_audio.model.hub_client import fetch_file
from resonate_audio.model.official.flow import from_official
from resonate_audio.model.published import ready
from resonate_audio.model.published.names import RESONATE, RESONATE_PT
from resonate_audio.model.text_encoder import TextEncoder

LARGE_FILES = ["Resonate_GRPO.pth", "v1-44.pth", "bigvgan_generator.pt", "model.safetensors"]


@pytest.fixture(scope="module")
def full_home(served: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds every download, and the ready model beside it."""
    home = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        use_hub(patch, served, home)
        find_model("resonate")
    return home


@pytest.fixture
def full(hub: Hub, full_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that cache, without a network."""
    shutil.copytree(full_home, tmp_path / "home", symlinks=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "home"


def large_gets(hub: Hub, name: str) -> list[str | None]:
    """The ranges in which a large file was asked for."""
    return [
        asked_range
        for method, path, asked_range, _ in hub.asked
        if method == "GET" and path.startswith("/large/") and path.endswith(name)
    ]


def left_behind() -> list[str]:
    return [path.name for path in ready.ready_folders().iterdir() if path.suffix != ".lock"]


def test_a_name_becomes_a_ready_folder_that_needs_no_hub_again(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    folder = find_model("resonate")
    said = [record.getMessage() for record in caplog.records if record.name == "resonate.models"]
    assert any("fetching Resonate_GRPO.pth (" in line and "AndreasXi" in line for line in said)
    assert any("from google/flan-t5-large, Apache-2.0" in line for line in said)
    assert any("to fetch" in line and "of memory" in line for line in said)
    networks = read_networks(folder)
    expected = from_official({k: v.bfloat16().float() for k, v in flow_state(FLOW).items()})
    for name, value in networks.transformer.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert networks.config.name == "resonate"
    assert networks.config.licence == RESONATE.licence
    encoder = load_file(folder / "text_encoder" / "model.safetensors")
    assert not any(name.startswith(("decoder.", "lm_head.")) for name in encoder)
    assert "v1-44.pth" in (folder / ready.SOURCES_NAME).read_text()
    hub.asked.clear()
    assert find_model("AndreasXi/Resonate") == folder
    assert hub.asked == []


def test_a_token_is_given_to_the_hub_and_not_to_its_storage(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch_file("AndreasXi/Resonate", "v1-44.pth")
    assert all(token for _, path, _, token in hub.asked if "/resolve/" in path)
    assert not any(token for _, path, _, token in hub.asked if path.startswith("/large/"))


def test_a_broken_connection_is_taken_up_where_it_broke(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)  # 10 MB otherwise
    hub.faults["v1-44.pth"] = Fault("broken", times=1)
    content = hub.files["AndreasXi/Resonate"]["v1-44.pth"]
    assert fetch_file("AndreasXi/Resonate", "v1-44.pth").read_bytes() == content
    kept = len(content) // 2 // 1000 * 1000
    assert large_gets(hub, "v1-44.pth") == [None, f"bytes={kept}-"]


def test_a_slow_hub_is_waited_for(hub: Hub) -> None:
    hub.faults["v1-44.pth"] = Fault("slow", times=1)
    content = hub.files["AndreasXi/Resonate"]["v1-44.pth"]
    assert fetch_file("AndreasXi/Resonate", "v1-44.pth").read_bytes() == content


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("gone", ModelNotFoundError, r"there is no file v1-44\.pth on http://127"),
        ("gated", ModelNotFoundError, r"accept the terms on http://127\S+/AndreasXi/Resonate and"),
        ("short", ModelNotFoundError, r"v1-44\.pth came incomplete \(\d+ of \d+ bytes\)"),
        ("changed", CheckpointError, r"v1-44\.pth has not the SHA-256"),
    ],
)
def test_what_the_hub_does_wrong_is_one_line_and_can_be_tried_again(
    hub: Hub, kind: str, error: type[Exception], message: str
) -> None:
    hub.faults["v1-44.pth"] = Fault(kind)
    with pytest.raises(error, match=message) as caught:
        find_model("resonate")
    assert len(str(caught.value).splitlines()) == 1
    assert left_behind() == []
    hub.faults.clear()
    assert fetch_file("AndreasXi/Resonate", "v1-44.pth").is_file()


def test_of_two_at_once_one_fetches_and_the_other_waits(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults["Resonate_GRPO.pth"] = Fault("slow", times=1)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(find_model("resonate"))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert "another process prepares it" in caplog.text
    for name in LARGE_FILES:
        assert len(large_gets(hub, name)) == 1, name


def other_process(hub: Hub, home: Path, statement: str) -> subprocess.Popen[bytes]:
    code = (
        f"import os, signal\nfrom resonate_audio.model.published import ready, names\n{statement}"
    )
    environment = {**os.environ, **variables(hub, home)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment)


def test_a_process_killed_while_it_fetches_leaves_the_work_to_the_one_that_waits(
    hub: Hub, tmp_path: Path
) -> None:
    under_way, killed = threading.Event(), threading.Event()

    def hold(name: str) -> None:
        if not killed.is_set():
            under_way.set()
            killed.wait(60)

    hub.before_large = hold
    other = other_process(hub, tmp_path / "home", "ready.provide(names.RESONATE)")
    assert under_way.wait(60)
    waiting = threading.Thread(target=find_model, args=("resonate",))
    waiting.start()
    time.sleep(0.2)
    assert waiting.is_alive()
    other.send_signal(signal.SIGKILL)
    other.wait()
    killed.set()
    waiting.join()
    assert is_model_folder(find_model("resonate"))


def test_a_process_killed_while_it_converts_leaves_nothing_that_is_used(
    full: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(full / "assets")
    statement = (
        "ready.record_sources = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ready.provide(names.RESONATE, local_files_only=True)"
    )
    assert other_process(hub, full, statement).wait() == -signal.SIGKILL
    (half_made,) = left_behind()
    assert half_made.endswith(".part")
    assert is_model_folder(find_model("resonate"))
    assert left_behind() == ["resonate"]


def test_without_a_network_a_full_cache_is_converted(full: Path) -> None:
    shutil.rmtree(full / "assets")
    assert is_model_folder(find_model("resonate"))


def test_without_a_network_what_is_missing_is_named(full: Path) -> None:
    shutil.rmtree(full / "assets")
    for path in (full / "hub").rglob("v1-44.pth"):
        path.unlink()
    with pytest.raises(ModelNotFoundError, match=r"v1-44\.pth is not in the local cache .*OFFLINE"):
        find_model("resonate")
    with pytest.raises(
        ModelNotFoundError, match=r"Resonate_PT\.pth .* not here either: v1-44\.pth"
    ):
        find_model("resonate-pt")


def test_what_two_models_share_is_fetched_once(
    full: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert find_model("resonate-pt") != find_model("resonate")
    large = [path.split("/")[-1] for path in hub.fetched() if path.startswith("/large/")]
    assert large == ["Resonate_PT.pth"]


def test_a_network_of_another_kind_is_refused_by_name(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match=r"v1-44\.pth of AndreasXi/Resonate holds a vae"):
        find_model("AndreasXi/Resonate:v1-44.pth")


def test_a_checkpoint_of_another_family_is_refused_by_name(hub: Hub) -> None:
    wide = FLOW.model_copy(update={"latent_channels": 6})
    hub.files["AndreasXi/Resonate"]["wide.pth"] = saved(flow_state(wide))
    with pytest.raises(
        CheckpointError, match=r"wide\.pth .* another family .*latent_channels is 6"
    ):
        find_model("AndreasXi/Resonate:wide.pth")
    assert left_behind() == []


def test_meanaudio_gets_the_text_half_of_clap(hub: Hub) -> None:
    folder = find_model("meanaudio-s")
    config = read_config(folder)
    assert config.transformer == MEAN_FLOW
    assert (config.name, config.default_steps, config.guidance_inside) == ("meanaudio-s", 1, True)
    encoder = TextEncoder.from_folder(config.text_encoder, folder / "text_encoder")
    assert encoder.encode(["a dog barks", "rain"]).pooled.shape == (2, POOLED_DIM)
    kept = load_file(folder / "text_encoder" / "pooled" / "model.safetensors")
    assert {name.split(".")[0] for name in kept} == {"text_branch", "text_projection"}


def test_a_flow_with_one_time_is_no_meanaudio(hub: Hub) -> None:
    hub.files["AndreasXi/MeanAudio"]["meanaudio_s_full.pth"] = saved(flow_state(PLAIN_FLOW))
    with pytest.raises(CheckpointError, match=r"another family .*network of mean velocities"):
        find_model("meanaudio-s")


def test_a_clap_without_a_text_half_is_refused(hub: Hub) -> None:
    name = "music_speech_audioset_epoch_15_esc_89.98.pt"
    hub.files["AndreasXi/MeanAudio"][name] = saved({"audio_branch.bn0.weight": torch.ones(2000)})
    with pytest.raises(CheckpointError, match=r"89\.98\.pt: no LAION-CLAP \(no text_branch"):
        find_model("fluxaudio-s")
    assert left_behind() == []


@pytest.fixture
def disk(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache on a disk of its own (a small tmpfs), which has room for the model."""
    with small_disk(tmp_path / "disk", "24m") as place:
        use_hub(monkeypatch, hub, place)
        yield place


def test_a_disk_without_room_is_refused_before_anything_is_fetched(hub: Hub, disk: Path) -> None:
    fill(disk, leave=100_000)
    with pytest.raises(DiskFullError, match=r"needs \d+\.\d MB in \S+, where \d+\.\d kB are free"):
        find_model("resonate")
    assert not any(path.startswith("/large/") for path in hub.fetched())


def test_a_disk_that_fills_while_fetching_is_one_line(hub: Hub, disk: Path) -> None:
    def fill_at(name: str) -> None:
        if name == "bigvgan_generator.pt":
            fill(disk, leave=100_000)

    hub.before_large = fill_at
    with pytest.raises(DiskFullError, match=r"the disk is full while bigvgan_generator\.pt"):
        find_model("resonate")
    (disk / "everything-else").unlink()
    hub.before_large = None
    assert is_model_folder(find_model("resonate"))


def test_a_cache_that_cannot_be_written_serves_what_is_ready(hub: Hub, disk: Path) -> None:
    find_model("resonate")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    read_networks(find_model("resonate"))
    with pytest.raises(OutputError, match=r"cannot be written \(Read-only .*HF_HOME"):
        find_model("resonate-pt")


def test_a_folder_to_carry_is_made_once_and_holds_everything(full: Path, tmp_path: Path) -> None:
    folder = ready.copy_to(RESONATE, tmp_path / "carried")
    assert find_model(folder) == folder
    assert (folder / "text_encoder" / "tokenizer.json").is_file()
    with pytest.raises(OutputError, match="exists already"):
        ready.copy_to(RESONATE, folder)


def test_removing_a_model_keeps_the_downloads_unless_asked(full: Path) -> None:
    assert ready.remove(RESONATE) > 100_000
    assert not is_model_folder(ready.ready_folder(RESONATE))
    assert len(ready.here(RESONATE)) == len(RESONATE.files)
    assert ready.remove(RESONATE, downloads=True) > 100_000
    assert ready.here(RESONATE) == []
    assert not list((full / "hub").rglob("blobs/*"))
    assert ready.remove(RESONATE_PT) == 0
