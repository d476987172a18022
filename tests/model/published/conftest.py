"""One hub on loopback for these tests, without faults and with an empty cache for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import Hub, serving, use_hub
from published_files import repositories


@pytest.fixture(scope="session")
def served() -> Iterator[Hub]:
    with serving(Hub(files={name: dict(files) for name, files in repositories().items()})) as hub:
        yield hub


@pytest.fixture
def hub(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    use_hub(monkeypatch, served, tmp_path / "home")
    served.asked.clear()
    yield served
    served.faults.clear()
    served.before_large = None
    served.files = {name: dict(files) for name, files in repositories().items()}
