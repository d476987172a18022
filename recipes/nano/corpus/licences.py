"""The licence of each recording, from the files its source states it in."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from corpus.rules import Source
from corpus.sources import Folders

PACKAGE_OF = {
    "0ad": "0ad-data",
    "ufoai": "ufoai-sound",
    "openarena": "openarena-data",
    "warzone": "warzone2100-data",
    "gcompris": "gcompris-qt-data",
}
"""Package of the sources that come from an archive inside one."""
WHOLE_PACKAGE = {"scratch", "yaru", "minetest", "tuxpaint", "tuxpaint_desc", "uh"}
"""Their copyright files name media by patterns that do not map to installed paths."""
BY_NAME = {
    "blanket": {
        **dict.fromkeys(("coffee-shop", "fireplace", "summer-night"), "Public Domain"),
        **dict.fromkeys(("pink-noise", "white-noise"), "CC-BY-SA"),
        **dict.fromkeys(("city", "rain", "storm"), "CC-BY"),
        "train": "CC-BY-3.0",
    },
    "noisekun": {
        "waterfall": "CC-BY",
        "white-noise": "CC-BY-SA",
        "pink-noise": "CC-BY-SA",
        "rain-on-tent": "CC-BY-4.0",
    },
}
"""Files of two collections whose licence is not CC0."""
DRUMKITS = {
    "BJA_Pacific": "CC-BY-SA-3.0",
    "circAfrique": "CC-BY-SA-3.0",
    "Millo": "GPL-2",
    "Gimme": "GPL-2",
    "Black Pearl": "GPL-2",
    "Forzee": "GPL-2",
    "Colombo": "GPL-2+ with composition exception",
}
UNUSABLE = re.compile(r"sampling|NC|noncomm|artistic-1|GFDL|unknown|^\?$", re.IGNORECASE)


@dataclass(frozen=True)
class Credit:
    """Under which licence a recording is, and whose it is."""

    licence: str
    author: str = ""
    url: str = ""
    package: str = ""
    group: str = ""
    """Recordings cut from one original share it."""

    @property
    def usable(self) -> bool:
        """Whether weights trained on it may be shared."""
        return not UNUSABLE.search(self.licence)


def credit(source: Source, path: Path, folders: Folders) -> Credit:
    """Look up the credit of one file of a source."""
    relative = path.relative_to(folders.sources / source.folder).as_posix()
    stem = path.stem
    if source.name == "esc10":
        number = stem.split("-")[1]
        table = esc_licences(folders.sources / "git" / "ESC-10" / "README.md")
        return Credit(table.get(number, "CC-BY-3.0 (collection)"), group=f"esc-{number}")
    if source.name == "cdda":
        return cdda_credits(folders.sources / "git/Fris0uman+CDDA-Soundpacks").get(
            path, Credit("?")
        )
    if source.name in BY_NAME:
        return Credit(BY_NAME[source.name].get(stem, "CC0"))
    if source.name == "opensfx":
        table = opensfx_licences(folders.sources / "git/OpenTTD+OpenSFX/src/opensfx.psfo")
        return Credit(table.get(stem, "CC-BY-SA-3.0"))
    if source.name == "hydrogen_kits":
        return Credit(next((v for k, v in DRUMKITS.items() if k in relative), "GPL-2+"))
    if source.folder.startswith("git"):
        return Credit(source.licence)
    return _package_credit(source, path, relative, folders)


def _package_credit(source: Source, path: Path, relative: str, folders: Folders) -> Credit:
    if source.name == "misc_deb":
        package = relative.split("/")[0]
    else:
        package = PACKAGE_OF.get(source.name) or source.folder.split("/")[1]
    if source.name in WHOLE_PACKAGE:
        return Credit(source.licence, package=package)
    if source.name == "sonicpi":
        return Credit("CC0", package=package)
    default = {"STK": "GPL-3+", "per package": "GPL-2+"}.get(source.licence, source.licence)
    copyright_file = folders.sources / f"deb/{package}/usr/share/doc/{package}/copyright"
    inside = path.relative_to(folders.sources).as_posix()
    return Credit(match_licence(read_copyright(copyright_file), inside, default), package=package)


@cache
def read_copyright(path: Path) -> tuple[tuple[str, str], ...]:
    """(pattern, licence) of a machine-readable Debian copyright file (DEP-5), in its order."""
    if not path.is_file():
        return ()
    text = path.read_text(encoding="utf-8", errors="replace")
    if not re.search(r"^Format", text, re.MULTILINE):
        return ()
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        files = re.search(r"^Files:(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        licence = re.search(r"^License:\s*(\S.*)", paragraph, re.MULTILINE)
        if files and licence:
            found += [
                (pattern.replace("\\", ""), licence.group(1).strip())
                for pattern in files.group(1).split()
            ]
    return tuple(found)


def match_licence(patterns: tuple[tuple[str, str], ...], path: str, default: str) -> str:
    """The licence of the last pattern that fits.

    Patterns speak of the source tree, ``path`` of the installed one; so a file fits when its name
    and last folder do, and a folder's ``*`` when the last two folders do.
    """
    *folders, name = path.split("/")
    licence = ""
    for pattern, value in patterns:
        *where, last = pattern.split("/")
        where = [part for part in where if part not in (".", "*", "")]
        if pattern == "*":
            licence = licence or value
        elif pattern.startswith("debian"):
            continue
        elif last == "*":
            licence = value if where and _ends_with(folders, where[-2:]) else licence
        elif fnmatch.fnmatch(name, last) and _ends_with(folders, where[-1:]):
            licence = value
    return licence or default


def _ends_with(folders: list[str], patterns: list[str]) -> bool:
    tail = folders[len(folders) - len(patterns) :]
    return len(tail) == len(patterns) and all(map(fnmatch.fnmatch, tail, patterns))


@cache
def esc_licences(readme: Path) -> dict[str, str]:
    """Licence of each Freesound number that the ESC-10 read-me lists."""
    table = {}
    for line in readme.read_text(encoding="utf-8", errors="replace").splitlines():
        if "zero" in line:
            licence = "CC0"
        elif "licenses/by/" in line:
            licence = "CC-BY-3.0"
        elif re.search("sampling", line, re.IGNORECASE):
            licence = "CC-Sampling+"
        else:
            continue
        for number in re.findall(r"sounds/(\d+)", line) + re.findall(r"\d-(\d+)-[A-Z]", line):
            table[number] = licence
    return table


@cache
def cdda_credits(folder: Path) -> dict[Path, Credit]:
    """Credits of each file that the tables named credits.md list."""
    names = {
        "CC0 1.0": "CC0", "CC 0": "CC0", "CC BY 3.0": "CC-BY-3.0", "CC BY 4.0": "CC-BY-4.0",
    }  # fmt: skip
    table = {}
    for credits in folder.rglob("credits.md"):
        for line in credits.read_text(encoding="utf-8", errors="replace").splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) > 4 and ".ogg" in cells[1]:
                licence = cells[3].strip("* ")
                number = re.search(r"(\d{3,})", cells[4].rstrip("/").split("/")[-1])
                table[credits.parent / Path(cells[1]).name] = Credit(
                    names.get(licence, licence),
                    author=cells[2],
                    url=cells[4],
                    group=f"fs-{number.group(1)}" if number else "",
                )
    return table


@cache
def opensfx_licences(listing: Path) -> dict[str, str]:
    """Licence of each file that OpenSFX's sound list states it for."""
    names = {
        "Creative Commons Attribution-ShareAlike 3.0 Unported": "CC-BY-SA-3.0",
        "Creative Commons Attribution 3.0 Unported": "CC-BY-3.0",
        "Creative Commons Zero 1.0": "CC0",
    }
    table = {}
    for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := re.search(r'(osfx_\d+)\.wav"\s+"[^"]*".*License:\s*(.*)', line):
            licence = found.group(2).strip().rstrip(".")
            table[found.group(1)] = names.get(licence, licence)
    return table
