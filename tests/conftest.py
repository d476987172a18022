"""Fixtures of the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_pages import chromium
from hypothesis import HealthCheck, settings
from tiny_model import TINY, random_networks, write_text_encoder

from resonate_audio.model.folder import write_networks

settings.register_profile(
    "busy", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # a machine that does other things is slow without a fault
settings.load_profile("busy")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a complete tiny model with random weights."""
    place = tmp_path_factory.mktemp("tiny")
    write_text_encoder(place / "words")
    write_networks(place / "model", random_networks(TINY, seed=0), place / "words")
    return place / "model"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real one for the tests of a file, or skip."""
    with chromium() as found:
        yield found
