"""What the pages tell people to type exists: every command, option, file and name; and it runs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from page_blocks import PAGES, ROOT, Block, blocks_of, commands_in

from resonate_audio.cli.main import app

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
OURS = re.compile(r"(?:recipes|benchmarks|scripts|resonate_audio)/[\w./-]+")
SOUNDS = re.compile(r"\]\((sounds/[^)]+)\)")
LIMIT_S = 900
RATE_HZ = 22_050


def command_at(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words lead to, and the words that are left."""
    command, rest = typer.main.get_command(app), list(words)
    while hasattr(command, "commands"):
        assert "".join(rest[:1]) in command.commands, f"no command {' '.join(words)!r}"
        command = command.commands[rest.pop(0)]
    return command, rest


def test_every_page_is_on_the_site() -> None:
    shown = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8")
    assert [p.name for p in (ROOT / "docs").glob("*.md") if f": {p.name}\n" not in shown] == []


def test_every_sound_of_a_page_is_there_and_none_is_left_over() -> None:
    folder = ROOT / "docs"
    texts = (page.read_text(encoding="utf-8") for page in folder.glob("*.md"))
    named = {name for text in texts for name in SOUNDS.findall(text)}
    assert named == {f"sounds/{path.name}" for path in (folder / "sounds").iterdir()}
    for path in (folder / "sounds").glob("*.mp3"):
        assert soundfile.info(path).frames > 0


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.is_shell], ids=str)
def test_every_command_and_option_on_a_page_exists(block: Block) -> None:
    for words in commands_in(block.code):
        if words[:1] in (["--help"], ["--version"]):
            continue
        command, rest = command_at(words)
        known = {name for option in command.params for name in option.opts + option.secondary_opts}
        for word in rest:
            name = word.partition("=")[0]
            if re.fullmatch(r"--[a-z][\w-]*|-[A-Za-z]", name) and name != "--help":
                assert name in known, f"{block}: resonate {' '.join(words)}: no option {name}"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_file_of_ours_that_a_page_names_exists(block: Block) -> None:
    for name in OURS.findall(block.code):
        assert (ROOT / name.rstrip(".")).exists(), f"{block}: {name}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=str)
def test_python_on_a_page_is_python_and_imports_what_there_is(block: Block) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("resonate_audio"):
            module = __import__(node.module, fromlist=["x"])
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block}: {node.module}.{alias.name}"


ABOUT_THE_CHECKOUT = ("README.md", "CONTRIBUTING.md", "nano.md", "judges.md", "parity.md")
"""What these tell to type needs the checkout and its tests, a corpus or published files."""


def run_pages() -> dict[Path, list[Block]]:
    """The blocks that are run, by page; Python that follows on Python is one program."""
    pages: dict[Path, list[Block]] = defaultdict(list)
    for block in BLOCKS:
        is_code = block.is_shell or block.language == "python"
        if block.page.name in ABOUT_THE_CHECKOUT or block.why_not_run or not is_code:
            continue
        before = pages[block.page][-1] if pages[block.page] else None
        if before and not before.is_shell and not block.is_shell:
            pages[block.page][-1] = replace(before, code=before.code + block.code)
        else:
            pages[block.page].append(block)
    return pages


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(run_pages()), ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_one_after_the_other(page: Path, tmp_path: Path) -> None:
    lay_out(tmp_path)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RESONATE_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
    }
    for block in run_pages()[page]:
        if block.language == "python":
            (tmp_path / "block.py").write_text(block.code, encoding="utf-8")
            command = [sys.executable, "block.py"]
        else:
            command = ["bash", "-euo", "pipefail", "-c", block.code]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{block}\n{block.code}\n{done.stdout}\n{done.stderr}"


def lay_out(folder: Path) -> None:
    """What a reader has: a checkout's recipes and two folders of sounds of their own."""
    for name in ("recipes", "benchmarks", "scripts", "resonate_audio"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "their" / "folder").mkdir(parents=True)
    noise = np.random.default_rng(0).standard_normal(3 * RATE_HZ)
    fading = noise * np.geomspace(0.3, 1e-3, 3 * RATE_HZ)
    for name in ("door", "take", "wind", "dog", "their/folder/0001", "their/folder/0002"):
        soundfile.write(folder / f"{name}.wav", fading, RATE_HZ)
    (folder / "prompts.txt").write_text("a door slams\nrain\n")
