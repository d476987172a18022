"""What the pages tell people to type exists: every command, option, file and name; and it runs."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import typer
from page_blocks import PAGES, ROOT, Block, blocks_of, commands_in

from resonate_audio.cli.main import app

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
OURS = re.compile(r"(?:recipes|benchmarks|scripts|resonate_audio)/[\w./-]+")
LIMIT_S = 900


def command_at(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words lead to, and the words that are left."""
    command, rest = typer.main.get_command(app), list(words)
    while hasattr(command, "commands"):
        assert "".join(rest[:1]) in command.commands, f"no command {' '.join(words)!r}"
        command = command.commands[rest.pop(0)]
    return command, rest


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


def run_pages() -> dict[Path, list[Block]]:
    """The blocks that are run, by page."""
    pages = defaultdict(list)
    for block in BLOCKS:
        if block.why_not_run is None and (block.is_shell or block.language == "python"):
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
    for name in ("sounds", "their/folder"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "constraints.txt", folder)
