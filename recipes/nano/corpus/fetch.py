"""Bring the sources: packages through apt, repositories through git; what fails is counted."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from corpus.sources import Folders, Repository

GIT_TIMEOUT_S = 900


def fetch_packages(packages: Iterable[str], folders: Folders) -> dict[str, str]:
    """Download each package once.

    A file left half-written by a killed run is checked by apt and completed.

    Returns:
        Why each package that could not be had could not be had.
    """
    folders.debs.mkdir(parents=True, exist_ok=True)
    failed = {}
    for package in packages:
        if downloaded(package, folders) is None:
            reason = run(["apt-get", "download", package], folders.debs)
            if reason or downloaded(package, folders) is None:
                failed[package] = reason or "apt-get left no file"
    return failed


def downloaded(package: str, folders: Folders) -> Path | None:
    """The package's file, if it is there."""
    return max(folders.debs.glob(f"{package}_*.deb"), default=None)


def fetch_repositories(repositories: Iterable[Repository], folders: Folders) -> dict[str, str]:
    """Fetch the one commit of each repository, without history.

    Returns:
        Why each repository that could not be reached could not be reached.
    """
    failed = {}
    for repository in repositories:
        target = folders.sources / "git" / repository.folder
        if not target.is_dir() and (reason := checkout(repository, target)):
            failed[repository.name] = reason
    return failed


def checkout(repository: Repository, target: Path) -> str:
    """Write the files of the commit to ``target`` (whole or not at all); returns what failed.

    A short commit cannot be asked for by name, so the whole history without file contents is
    fetched first, and the contents of the one commit when it is checked out.
    """
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    steps = (
        ["git", "clone", "--quiet", "--no-checkout", "--filter=blob:none", repository.url, partial],
        ["git", "-C", partial, "checkout", "--quiet", repository.commit],
    )
    for step in steps:
        if reason := run([str(part) for part in step], None):
            shutil.rmtree(partial, ignore_errors=True)
            return reason
    shutil.rmtree(partial / ".git")
    partial.rename(target)
    return ""


def run(command: list[str], folder: Path | None) -> str:
    """Run a command; returns the last line of what it said if it failed, else nothing."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"{command[0]} ended with {done.returncode}"
