import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_corpus import make_sample, write_shards

from resonate_audio.core.errors import OutputError, ShardError
from resonate_audio.data.shards.write import (
    INDEX,
    pack_sample,
    parse_index,
    unpack_sample,
    verify_shards,
    write_shard,
)


@given(st.dictionaries(st.sampled_from(["json", "flac", "a.b"]), st.binary(max_size=1500)))
@settings(max_examples=60, deadline=None)
def test_what_was_packed_is_unpacked(members: dict[str, bytes]) -> None:
    assert unpack_sample(pack_sample("0-1", members)) == ("0-1" if members else "", members)


def test_a_shard_is_a_tar_file_that_python_reads(tmp_path: Path) -> None:
    sample = make_sample(7, 4)
    write_shard(tmp_path / "a.tar", [sample, make_sample(8, 4)])
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = tar.getnames()
        content = tar.extractfile("000007.json")
        assert content is not None
        assert json.load(content) == {"audio_id": "clip-7"}
    assert names[:3] == ["000007.latents.safetensors", "000007.text.safetensors", "000007.json"]
    assert len(names) == 6


def test_a_shard_is_a_tar_file_that_tar_reads(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [make_sample(7, 4)])
    listed = subprocess.run(
        ["tar", "-tf", tmp_path / "a.tar"], capture_output=True, text=True, check=True
    )
    assert listed.stdout.splitlines()[-1] == "000007.json"
    assert not listed.stderr


READ_WITH_WEBDATASET = """
import json, sys, webdataset
for item in webdataset.WebDataset(sys.argv[1], shardshuffle=False):
    extensions = sorted(name for name in item if not name.startswith("__"))
    print(json.loads(item["json"])["audio_id"], *extensions)
"""


def test_shards_are_read_by_the_webdataset_library(tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="pip install webdataset")
    url = str(write_shards(tmp_path, [3, 2]) / "shard-{000000..000001}.tar")
    read = subprocess.run(  # a process of its own, because it leaves files open
        [sys.executable, "-c", READ_WITH_WEBDATASET, url],
        capture_output=True,
        text=True,
        check=True,
    )
    extensions = "json latents.safetensors text.safetensors"
    assert read.stdout.splitlines() == [f"clip-{number} {extensions}" for number in range(5)]


def test_the_index_says_where_clips_lie_and_what_the_file_holds(tmp_path: Path) -> None:
    samples = [make_sample(1, 4), make_sample(2, 8)]
    entry, table = write_shard(tmp_path / "a.tar", samples)
    content = (tmp_path / "a.tar").read_bytes()
    assert (entry.num_bytes, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    start, size = int(table["offset"][1]), int(table["num_bytes"][1])
    assert unpack_sample(content[start : start + size]) == (samples[1].key, samples[1].members)
    assert table["num_frames"].tolist() == [4, 8]


def test_a_shard_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def samples():  # noqa: ANN202
        yield make_sample(1, 4)
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="the disk is full"):
        write_shard(tmp_path / "a.tar", samples())
    assert list(tmp_path.iterdir()) == []


def test_an_index_of_another_version_is_named(tmp_path: Path) -> None:
    index = write_shards(tmp_path, [2]) / INDEX
    values = json.loads(index.read_text()) | {"version": 7, "new": 1}
    with pytest.raises(ShardError, match=r"here: version 7, this program reads version 1"):
        parse_index(json.dumps(values), "here")


def test_another_json_file_is_no_index() -> None:
    with pytest.raises(ShardError, match="here: not the index of shards"):
        parse_index("[]", "here")
    with pytest.raises(ShardError, match="here: not JSON"):
        parse_index("{", "here")


def test_whole_shards_are_verified_in_silence(tmp_path: Path) -> None:
    assert list(verify_shards(write_shards(tmp_path, [2, 2]))) == []


def test_a_flipped_bit_and_a_lost_file_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path, [2, 2])
    path = tmp_path / "shard-000000.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    (tmp_path / "shard-000001.tar").unlink()
    damaged, lost = verify_shards(tmp_path)
    assert "shard-000000.tar: its SHA-256 is" in damaged
    assert "shard-000001.tar: cannot read it" in lost
