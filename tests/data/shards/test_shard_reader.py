import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shard_corpus import CHANNELS, DIM, write_shards

from resonate_audio.core.errors import ShardError
from resonate_audio.data.shards.order import ShardPlan
from resonate_audio.data.shards.read import BadSamples, LatentShards, ReadAhead, Shards
from resonate_audio.data.shards.write import Members


def audio_id(members: Members) -> str:
    return str(json.loads(members["json"])["audio_id"])


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


class RangeHandler(SimpleHTTPRequestHandler):
    """Python's file server, and ranges of bytes, which it lacks."""

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        if span is None or not self.server.ranges:  # type: ignore[attr-defined]
            super().do_GET()
            return
        first, last = span.removeprefix("bytes=").split("-")
        content = Path(self.translate_path(self.path)).read_bytes()
        part = content[int(first) : int(last) + 1]
        self.send_response(206 if part else 416)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    pytest.importorskip("fsspec", reason="pip install 'resonate-audio[data]'")
    pytest.importorskip("aiohttp", reason="pip install 'resonate-audio[data]'")

    def handler(*args: Any) -> RangeHandler:
        return RangeHandler(*args, directory=str(tmp_path))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.ranges = True  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def address(server: ThreadingHTTPServer, name: str = "set") -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def test_clips_are_read_by_their_number(tmp_path: Path) -> None:
    shards = Shards(write_shards(tmp_path, [3, 0, 4]))
    rows, names = shards.read(np.array([6, 0, 3]), audio_id)
    assert rows == [0, 1, 2]
    assert names == ["clip-6", "clip-0", "clip-3"]


def test_clips_are_read_over_http(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    write_shards(tmp_path / "set", [3, 4])
    shards = Shards(address(server))
    assert shards.read(np.array([6, 0, 3]), audio_id)[1] == ["clip-6", "clip-0", "clip-3"]
    assert shards.frames.tolist() == [4, 8, 4, 4, 8, 4, 4]


def test_a_server_without_ranges_is_named(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    write_shards(tmp_path / "set", [3])
    server.ranges = False  # type: ignore[attr-defined]
    with pytest.raises(ShardError, match="must answer range requests"):
        Shards(address(server)).read(np.array([1]), audio_id)


def test_a_truncated_shard_on_a_server_is_named(
    tmp_path: Path, server: ThreadingHTTPServer
) -> None:
    path = write_shards(tmp_path / "set", [3, 3]) / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ShardError, match=r"shard-000001\.tar: truncated or replaced, 900 bytes"):
        Shards(address(server)).read(np.array([5]), audio_id)


def test_nothing_on_the_server_is_named(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    with pytest.raises(ShardError, match=r"nowhere/index\.json: cannot read it"):
        Shards(address(server, "nowhere"))


def test_an_unknown_protocol_says_what_is_missing() -> None:
    pytest.importorskip("fsspec", reason="pip install 'resonate-audio[data]'")
    with pytest.raises(ShardError, match=r"nonsense://there: .*pip install"):
        Shards("nonsense://there")


def test_a_truncated_shard_is_named_when_it_is_opened(tmp_path: Path) -> None:
    path = write_shards(tmp_path, [3, 3]) / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(ShardError, match=r"shard-000001\.tar: truncated or replaced"):
        Shards(tmp_path)


def test_a_lost_shard_is_named_when_it_is_opened(tmp_path: Path) -> None:
    (write_shards(tmp_path, [3, 3]) / "shard-000000.tar").unlink()
    with pytest.raises(ShardError, match=r"shard-000000\.tar: cannot read it"):
        Shards(tmp_path)


def test_a_folder_without_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"index\.json: cannot read it .*complete when"):
        Shards(tmp_path)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    table = write_shards(tmp_path, [3]) / "samples.npy"
    table.write_bytes(table.read_bytes()[:-5])
    with pytest.raises(ShardError, match=r"samples\.npy: truncated"):
        Shards(tmp_path)


def test_a_damaged_clip_is_named_and_left_out(tmp_path: Path) -> None:
    write_shards(tmp_path, [100])
    said: list[str] = []
    shards = Shards(tmp_path, said.append)
    offset = int(shards.samples["offset"][7])
    flip(tmp_path / "shard-000000.tar", offset + 600)
    rows, names = shards.read(np.array([6, 7, 8]), audio_id)
    assert (rows, names) == ([0, 2], ["clip-6", "clip-8"])
    assert len(said) == 1
    assert f"clip 7 cannot be used and is left out: {tmp_path}/shard-000000.tar, byte" in said[0]


def test_a_clip_that_cannot_be_decoded_is_left_out(tmp_path: Path) -> None:
    def refuse(members: Members) -> str:
        if audio_id(members) == "clip-1":
            raise ValueError("no sound")
        return audio_id(members)

    shards = Shards(write_shards(tmp_path, [100]))
    assert shards.read(np.array([0, 1]), refuse)[1] == ["clip-0"]
    assert "ValueError: no sound" in shards.bad.found[1]


def test_more_than_one_bad_clip_in_a_hundred_stops_the_run(tmp_path: Path) -> None:
    shards = Shards(write_shards(tmp_path, [100]))
    for number in (3, 50):
        flip(tmp_path / "shard-000000.tar", int(shards.samples["offset"][number]) + 600)
    shards.read(np.arange(50), audio_id)
    with pytest.raises(ShardError, match=r"2 of 51 clips read .*more than 1 %"):
        shards.read(np.arange(50, 100), audio_id)


def test_a_bad_clip_counts_once_however_often_it_is_read() -> None:
    bad = BadSamples(100, lambda text: None)
    for _ in range(5):
        bad.note(3, "torn")
    assert bad.found == {3: "torn"}


def test_ten_bad_clips_may_come_first_among_many() -> None:
    bad = BadSamples(100_000, lambda text: None)
    for number in range(10):
        bad.note(number, "torn")
    with pytest.raises(ShardError, match="11 of 11"):
        bad.note(10, "torn")


def test_a_batch_of_latents_has_every_caption_and_the_empty_prompt(tmp_path: Path) -> None:
    shards = LatentShards(write_shards(tmp_path, [3, 3]))
    rows, batch = shards.read(np.array([3, 0, 2]))  # 4 frames each; clip 3 has two captions
    assert batch is not None
    assert rows == [0, 1, 2]
    (bucket,) = batch.buckets
    assert bucket.mean[:, 0, 0].tolist() == [3, 0, 2]
    assert bucket.mean.shape == (3, 4, CHANNELS)
    assert bucket.num_real_frames.tolist() == [3, 3, 3]
    assert bucket.captions.tolist() == [[1, 2], [3, 0], [4, 0]]
    assert bucket.num_captions.tolist() == [2, 1, 1]
    features = batch.captions.features(torch.tensor([0, 2, 4]))
    assert features.pooled[:, 0].tolist() == [0, 3, 2]
    assert features.tokens.shape == (3, 5, DIM)
    assert features.tokens[1, :, 0].tolist() == [3, 3, 0, 0, 0]


def test_a_batch_of_nothing_but_bad_clips_is_none(tmp_path: Path) -> None:
    shards = LatentShards(write_shards(tmp_path, [100]))
    flip(tmp_path / "shard-000000.tar", int(shards.shards.samples["offset"][9]) + 600)
    assert shards.read(np.array([9])) == ([], None)


def test_all_batches_of_an_epoch_hold_each_clip_once(tmp_path: Path) -> None:
    shards = LatentShards(write_shards(tmp_path, [7, 5, 9]))
    plan = ShardPlan(shards.shards.sizes, shards.shards.frames, 16, seed=0)
    read = ReadAhead(lambda index: shards.read(plan.batch(index)))
    means: list[float] = []
    for index in range(plan.batches_per_epoch):
        _, batch = read(index)
        assert batch is not None
        means += batch.buckets[0].mean[:, 0, 0].tolist()
    read.close()
    assert sorted(means) == list(range(21))


def test_reading_ahead_gives_what_was_asked_for_in_any_order() -> None:
    read = ReadAhead(lambda number: number * number, ahead=3)
    assert [read(number) for number in (0, 1, 2, 7, 1, 8)] == [0, 1, 4, 49, 1, 64]
    read.close()


def test_an_error_met_ahead_is_raised_when_its_turn_comes() -> None:
    def fail_at_two(number: int) -> int:
        if number == 2:
            raise ShardError("torn")
        return number

    read = ReadAhead(fail_at_two)
    assert [read(0), read(1)] == [0, 1]
    with pytest.raises(ShardError, match="torn"):
        read(2)
    read.close()
