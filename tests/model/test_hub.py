from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resonate_audio.core.errors import ModelNotFoundError
from resonate_audio.model.folder import is_model_folder
from resonate_audio.model.hub import bundled_models, find_model

NOBODY = "http://127.0.0.1:9"
"""An address where no hub answers."""


def run_without_hub(statement: str, cache: Path) -> str:
    code = (
        "from pathlib import Path; from resonate_audio.model import hub, hub_client;"
        "from resonate_audio.core.errors import ResonateError\n"
        f"try: {statement}\nexcept ResonateError as error: print(type(error).__name__, error)"
    )
    environment = {**os.environ, "HF_ENDPOINT": NOBODY, "HF_HUB_CACHE": str(cache), "HF_TOKEN": "x"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "Retrying" not in done.stderr
    return done.stdout.strip()


def test_a_download_without_network_is_one_line(tmp_path: Path) -> None:
    said = run_without_hub("hub.find_model('some/one')", tmp_path)
    assert said.startswith("NotHereError some/one: cannot be fetched from the hub")
    assert len(said.splitlines()) == 1


def test_an_upload_without_network_is_one_line(tmp_path: Path) -> None:
    said = run_without_hub("hub_client.upload(Path('.'), 'some/one', False, 'message')", tmp_path)
    assert said.startswith("ResonateError some/one: cannot be sent to the hub")
    assert len(said.splitlines()) == 1


def test_a_folder_is_found_as_it_is(tmp_path: Path) -> None:
    assert find_model(tmp_path) == tmp_path
    assert find_model(str(tmp_path)) == tmp_path


def test_what_is_bundled_is_whole() -> None:
    for name, folder in bundled_models().items():
        assert is_model_folder(folder), name
        assert find_model(name) == folder


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "-x/y", "owner/na me", ""])
def test_what_cannot_be_a_hub_id_never_asks_the_network(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no such model; bundled: "):
        find_model(name)


def test_a_revision_may_stand_behind_the_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="some/one at v1: not in the local cache"):
        find_model("some/one@v1", local_files_only=True)
