"""The notebooks run from first cell to last, in a kernel, and are kept without outputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SHORT = {"make-and-edit": "duration_s = 2.5", "teach-nano": "num_steps = 2"}
"""What stands in place of a notebook's parameters, so that it ends in minutes."""


def cells(notebook: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return found


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    code = [cell for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert [cell["execution_count"] for cell in code] == [None] * len(code)
    assert len([cell for cell in code if is_parameters(cell)]) == 1


def is_parameters(cell: Mapping[str, Any]) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(notebook: Path, tmp_path: Path) -> None:
    reason = 'needs: pip install "resonate-audio[notebooks]"'
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    import nbformat

    loaded = nbformat.read(notebook, as_version=4)
    nbformat.validate(loaded)
    for cell in loaded.cells:
        if is_parameters(cell):
            cell.source += "\n" + SHORT[notebook.stem]
    assert "python" in Path(sys.executable).name
    nbclient.NotebookClient(
        loaded, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in loaded.cells for output in cell.get("outputs", [])]
    assert any("<audio" in output.get("data", {}).get("text/html", "") for output in outputs)
