"""Golden vectors: one line a file, ``name  max_abs  max_rel  PASS|FAIL``.

``python -m resonate_audio.cli.parity DIR`` reads every ``*.safetensors`` of a folder.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from resonate_audio.cli.console import print_text, say
from resonate_audio.parity.check import FileResult, check_file


def report_lines(result: FileResult, verbose: bool = False) -> list[str]:
    """The line of a file, then its tensors: all of them if ``verbose``, else the failed ones."""
    errors = "  ".join(_number(value) for value in (result.max_abs, result.max_rel))
    line = f"{result.name:<28}  {errors}  {result.verdict}"
    lines = [f"{line}  ({result.note})" if result.note else line]
    for item in result.differences:
        if verbose or not item.passed:
            verdict = "pass" if item.passed else "FAIL"
            errors = "  ".join(_number(value) for value in (item.max_abs, item.max_rel))
            detail = f"    {item.label:<60}  {errors}  {verdict}"
            lines.append(f"{detail}  ({item.note})" if item.note else detail)
    return lines


def _number(value: float) -> str:
    return f"{'-' if math.isnan(value) else f'{value:.3e}':>9}"


def check_folder(folder: Path, verbose: bool = False) -> int:
    """Print a line for every golden file of a folder; 0 if none failed, 1 if one did, 2 if none."""
    paths = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not paths:
        say(f"{folder}: no *.safetensors here; give a folder of golden vectors")
        return 2
    failed = 0
    for path in paths:
        result = check_file(path)
        failed += result.verdict == "FAIL"
        print_text("\n".join(report_lines(result, verbose)))
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """``scripts/parity DIR [--verbose]``."""
    parser = argparse.ArgumentParser(prog="parity", description="Check golden vectors.")
    parser.add_argument("folder", type=Path, help="folder of *.safetensors golden files")
    parser.add_argument("--verbose", action="store_true", help="print every tensor")
    options = parser.parse_args(arguments)
    return check_folder(options.folder, options.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
