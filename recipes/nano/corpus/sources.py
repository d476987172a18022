"""Where the recordings come from: packages, repositories, and archives inside packages."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Folders:
    """Where a rebuild keeps its files."""

    work: Path

    @property
    def debs(self) -> Path:
        """Downloaded packages."""
        return self.work / "debs"

    @property
    def sources(self) -> Path:
        """Unpacked files: deb/<package>, x/<archive>, git/<owner>+<name>, render/<soundfont>."""
        return self.work / "src"

    @property
    def clips(self) -> Path:
        """One folder of FLAC files and one listing per source."""
        return self.work / "clips"


@dataclass(frozen=True)
class Repository:
    """A public repository at one commit."""

    name: str
    """owner/name"""
    commit: str

    @property
    def folder(self) -> str:
        """Its folder under ``git/``."""
        return "ESC-10" if self.name.endswith("/ESC-10") else self.name.replace("/", "+")

    @property
    def url(self) -> str:
        """Where it is cloned from."""
        return f"https://github.com/{self.name}.git"


@dataclass(frozen=True)
class InnerArchive:
    """An archive that a package carries its sounds in."""

    package: str
    path: str
    """Inside the package; ``*`` matches anything."""
    folder: str
    """Under ``x/``."""
    prefix: str = ""
    """Only members whose name starts so."""


INNER_ARCHIVES = (
    InnerArchive("0ad-data", "usr/share/games/0ad/mods/public/public.zip", "0ad", "audio/"),
    InnerArchive("ufoai-sound", "usr/share/games/ufoai/base/0snd.pk3", "ufoai"),
    InnerArchive(
        "openarena-data", "usr/share/games/openarena/baseoa/pak0.pk3", "openarena", "sound/"
    ),
    InnerArchive(
        "openarena-data", "usr/share/games/openarena/missionpack/mp-pak0.pk3", "openarena", "sound/"
    ),
    InnerArchive(
        "openarena-085-data",
        "usr/share/games/openarena/baseoa/pak6-patch085.pk3",
        "openarena",
        "sound/",
    ),
    InnerArchive("warzone2100-data", "usr/share/games/warzone2100/base.wz", "warzone"),
    InnerArchive("warzone2100-data", "usr/share/games/warzone2100/mp.wz", "warzone"),
    InnerArchive("gcompris-qt-data", "usr/share/gcompris-qt/rcc/*.rcc", "gcompris"),
)

SOUNDFONTS = {
    "fluidr3": "deb/fluid-soundfont-gm/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "msgeneral": "deb/musescore-general-soundfont/usr/share/sounds/sf3/MuseScore_General.sf3",
}
"""Soundfont of each folder under ``render/``."""


def read_packages() -> dict[str, str]:
    """Debian packages of the corpus and the version each was built from."""
    lines = (HERE / "packages.txt").read_text(encoding="utf-8").split()
    return dict(line.split("=", 1) for line in lines)


def read_repositories() -> list[Repository]:
    """Repositories of the corpus."""
    lines = (HERE / "repos.txt").read_text(encoding="utf-8").split()
    return [Repository(*line.split("@")) for line in lines]


def stable_hash(text: str) -> int:
    """A number that stands for a name, the same on every machine."""
    return int(hashlib.sha1(text.encode()).hexdigest()[:8], 16)
