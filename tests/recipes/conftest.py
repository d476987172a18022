"""The recipe is a script with modules beside it: make them importable."""

from __future__ import annotations

import sys
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "nano"
sys.path.insert(0, str(RECIPE))
