"""Take the sounds and the licences out of packages, archives and Qt resource files."""

from __future__ import annotations

import fnmatch
import posixpath
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from corpus.sources import INNER_ARCHIVES, Folders

SOUND_SUFFIXES = (
    ".wav", ".ogg", ".oga", ".flac", ".mp3", ".opus", ".aif", ".aiff", ".au", ".wv",
)  # fmt: skip
OTHER_SUFFIXES = (".sf2", ".sf3")
SOUNDS_WITHOUT_SUFFIX = ("/usr/share/games/blobwars/sound/",)
SPOKEN_TEXTS = "/usr/share/tuxpaint/stamps/"
"""Folder whose .txt files hold what its sounds say."""


def unpack_package(deb: Path, package: str, folders: Folders) -> None:
    """Write the sounds, soundfonts, inner archives and copyright file of a package, once.

    Raises:
        OSError: dpkg-deb is missing or the package is broken.
    """
    target = folders.sources / "deb" / package
    if target.is_dir():
        return
    partial = target.with_name(f".{package}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    if is_wanted(package, member.name):
                        _write_member(archive, member, partial)
        except tarfile.TarError as error:
            raise OSError(f"{deb}: not a package ({error})") from error
        finally:
            process.stdout.close()
    partial.rename(target)


def is_wanted(package: str, name: str) -> bool:
    """Whether a file of a package is a sound, tells of one, or holds some."""
    path = posixpath.normpath("/" + name)
    inner = any(
        a.package == package and fnmatch.fnmatch(path, "/" + a.path) for a in INNER_ARCHIVES
    )
    return (
        path.lower().endswith(SOUND_SUFFIXES + OTHER_SUFFIXES)
        or path.endswith("/copyright")
        or path.startswith(SOUNDS_WITHOUT_SUFFIX)
        or (path.startswith(SPOKEN_TEXTS) and path.endswith(".txt"))
        or inner
    )


def is_sound(name: str) -> bool:
    """Whether a name ends like a sound's."""
    return name.lower().endswith(SOUND_SUFFIXES)


def _write_member(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Write one file or one link that stays inside ``target``; anything else is passed over."""
    name = posixpath.normpath(member.name)
    if name.startswith(("/", "..")):
        return
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.isfile() and (stream := archive.extractfile(member)):
        with path.open("wb") as file:
            shutil.copyfileobj(stream, file)
    elif member.issym():
        aim = posixpath.normpath(posixpath.join("/" + posixpath.dirname(name), member.linkname))
        path.symlink_to(posixpath.relpath(aim, "/" + posixpath.dirname(name)))
    elif member.islnk():
        path.hardlink_to(target / posixpath.normpath(member.linkname))


def unpack_inner(package: str, folders: Folders) -> int:
    """Unpack the archives inside a package; returns how many sounds they held."""
    count = 0
    for archive in INNER_ARCHIVES:
        if archive.package != package:
            continue
        target = folders.sources / "x" / archive.folder
        for path in sorted((folders.sources / "deb" / package).glob(archive.path)):
            members = _resource_members(path) if path.suffix == ".rcc" else _zip_members(path)
            for name, content in members:
                safe = posixpath.normpath("/" + name).lstrip("/")
                if safe.startswith(archive.prefix) and safe.lower().endswith(SOUND_SUFFIXES):
                    (target / safe).parent.mkdir(parents=True, exist_ok=True)
                    (target / safe).write_bytes(content)
                    count += 1
    return count


def _zip_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.lower().endswith(SOUND_SUFFIXES):
                yield name, archive.read(name)


def _resource_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Files of a Qt binary resource: a tree of nodes, names in UTF-16, data with its length.

    Layout: "qres", then version and the offsets of tree, data and names, big-endian u32. A node is
    name offset u32, flags u16 (1 zlib, 2 folder, 4 zstd), then (count, first child) or (territory,
    language, data offset), then a date from version 2 on.
    """
    blob = path.read_bytes()
    if blob[:4] != b"qres":
        return
    version, tree, data, names = struct.unpack_from(">IIII", blob, 4)
    node_bytes = 14 if version < 2 else 22
    pending = [(0, "")]
    while pending:
        index, folder = pending.pop()
        node = tree + index * node_bytes
        name_at, flags = struct.unpack_from(">IH", blob, node)
        (letters,) = struct.unpack_from(">H", blob, names + name_at)
        begin = names + name_at + 6
        name = blob[begin : begin + 2 * letters].decode("utf-16-be") if index else ""
        full = f"{folder}/{name}" if index else ""
        if flags & 2:
            num_children, first = struct.unpack_from(">II", blob, node + 6)
            pending += [(first + i, full) for i in range(num_children)]
        elif full.lower().endswith(SOUND_SUFFIXES) and not flags & 4:
            (offset,) = struct.unpack_from(">I", blob, node + 10)
            (length,) = struct.unpack_from(">I", blob, data + offset)
            content = blob[data + offset + 4 : data + offset + 4 + length]
            yield full, zlib.decompress(content[4:]) if flags & 1 else content
