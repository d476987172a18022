"""What the tests of faults share: servers are started once, since that takes longest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Servers of every kind."""
    pytest.importorskip("uvicorn", reason='needs pip install "resonate-audio[serve]"')
    made = make_world(tmp_path_factory.mktemp("world"))
    try:
        yield made
    finally:
        for server in made.servers.values():
            server.stop()
