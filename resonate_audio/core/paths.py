"""What a path means: one rule for what a person gives, one for what a list names, one for folders.

- An option, a field of a recipe or an argument of a function is relative to the folder that one is
  in, wherever the recipe lies; ``~`` is the home folder (`given_path`). What a recipe reads and is
  not there may lie beside the recipe (`beside`); what it writes is written where one is.
- What comes with the package is found from anywhere: ``resonate_audio/nano/prompts/practice.jsonl``
  as recipes have it, or ``practice.jsonl`` alone, unless there is such a file here (`input_path`);
  a recipe as ``nano/grpo`` (`recipe_path`).
- A manifest, or any list of files, names them relative to the folder that it is named in; where it
  is a link and they are not there, to the folder that it leads to (`listed_path`).
- A folder is walked through its links, each folder once; hidden names and what macOS leaves beside
  files (``._1.wav``, ``__MACOSX``) are passed (`walk`, `sounds_in`).
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Container, Iterator
from pathlib import Path, PureWindowsPath

from resonate_audio.core.errors import InputError, ManifestError

PACKAGE = Path(__file__).parents[1]
BUNDLED_PROMPTS = PACKAGE / "nano" / "prompts"
RECIPES = "recipes"
"""Folder of recipes: in the package where it is installed, beside it in a checkout."""
LITTER = "__MACOSX"
"""Folder of resource forks that macOS packs into archives."""


def given_path(path: str | Path) -> Path:
    """A path as a person gives it, its ``~`` replaced by the home folder.

    Raises:
        InputError: this user has no home folder.
    """
    given = Path(path)
    if given.parts[:1] != ("~",):
        return given
    try:
        return given.expanduser()
    except RuntimeError as error:
        text = f"{path}: this user has no home folder (HOME is not set); give a full path"
        raise InputError(text) from error


def input_path(path: str | Path) -> Path:
    """A path to read from: as `given_path`, or what comes with the package under that name."""
    given = given_path(path)
    if os.path.lexists(given) or given.is_absolute():
        return given
    inside = given.parts[:1] == (PACKAGE.name,)
    bundled = PACKAGE.parent / given if inside else BUNDLED_PROMPTS / given
    is_named = inside or len(given.parts) == 1
    return bundled if is_named and os.path.exists(bundled) else given


def beside(path: Path, folder: Path) -> Path:
    """A path to read from: where one is, or else, if it lies there, in a folder; then in full."""
    if path.is_absolute() or os.path.lexists(path):
        return path
    there = Path(os.path.abspath(folder / path))
    return there if os.path.lexists(there) else path


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name: ``pretrain``, ``nano/grpo``."""
    folder = next(at / RECIPES for at in (PACKAGE, PACKAGE.parent) if (at / RECIPES).is_dir())
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*/*.yaml")])
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def recipe_path(path: str | Path) -> Path:
    """A recipe to read: a file, or one that comes with the package under that name.

    Raises:
        InputError: a name without a suffix that is neither; lists the names.
    """
    given = given_path(path)
    if given.is_absolute() or os.path.lexists(given):
        return given
    bundled = bundled_recipes()
    name = given.with_suffix("") if given.suffix == ".yaml" else given
    parts = name.parts[1:] if name.parts[:1] == (RECIPES,) else name.parts
    found = bundled.get("/".join(parts))
    if found is None and not given.suffix:
        names = ", ".join(bundled)
        raise InputError(f"{given}: no such recipe; expected a YAML file, or one of {names}")
    return found or given


def listed_path(listing: Path, name: str) -> Path:
    """The file that a list names, whether or not it is there.

    Names may be written on another system: with backslashes, or with letters and accents joined
    (NFC) or apart (NFD).

    Args:
        listing: the list itself, as it was named.
        name: relative to its folder, or from the root.
    """
    given = given_path(name)
    folders = [listing.parent]
    if listing.is_symlink():
        folders.append(Path(os.path.realpath(listing)).parent)
    names = [given]
    if slashed(name) != name:
        names.append(Path(slashed(name)))
    places = [folder / one for one in names for folder in folders]
    found = (there for place in places if (there := _spelt(place)) is not None)
    return next(found, places[0])


def _spelt(path: Path) -> Path | None:
    """A path as its folders spell it, or None if nothing is there under any spelling."""
    if os.path.exists(path):
        return path
    if str(path).isascii():
        return None
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        forms = (part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD")))
        spelt = next((form for form in forms if os.path.lexists(found / form)), None)
        if spelt is None:
            return None
        found /= spelt
    return found


def slashed(name: str) -> str:
    """A name of a list in which only Windows sees folders, with slashes."""
    return PureWindowsPath(name).as_posix() if "\\" in name and "/" not in name else name


def same_name(text: str) -> str:
    """A name in the form that two spellings of it share (NFC)."""
    return unicodedata.normalize("NFC", text)


def is_passed(name: str) -> bool:
    """Whether a file or folder is none of a collection's: hidden, or left by macOS."""
    return name.startswith(".") or name == LITTER


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder below ``root`` and itself, with the sorted names of its files.

    Folders that lie in the tree come first, then those that links lead to; each comes once, so that
    a link to a folder above ends nowhere.

    Raises:
        ManifestError: a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    inside, linked = [root], list[Path]()
    while inside or linked:
        folder = inside.pop() if inside else linked.pop(0)
        try:
            state = folder.stat()
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            kept = [entry for entry in entries if not is_passed(entry.name)]
            folders = [entry for entry in kept if _is_folder(entry)]
            names = {entry.name for entry in folders}
        except OSError as error:
            raise ManifestError(f"{folder}: cannot read it ({error.strerror or error})") from error
        yield folder, [entry.name for entry in kept if entry.name not in names]
        linked += [Path(entry.path) for entry in folders if entry.is_symlink()]
        inside += [Path(entry.path) for entry in reversed(folders) if not entry.is_symlink()]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself is as little as one to nothing
        return False


def files_below(root: Path, suffixes: Container[str] | None = None) -> list[Path]:
    """Every file of a tree, folder by folder; only those of some suffixes, if given."""
    return [
        folder / name
        for folder, names in walk(root)
        for name in names
        if suffixes is None or os.path.splitext(name)[1].lower() in suffixes
    ]


def files_in(folder: Path, suffixes: Container[str]) -> list[Path]:
    """Files of some suffixes, in any case of letters, that lie in a folder itself, sorted.

    Raises:
        ManifestError: the folder cannot be read.
    """
    _, names = next(walk(folder))
    return [folder / name for name in names if os.path.splitext(name)[1].lower() in suffixes]
