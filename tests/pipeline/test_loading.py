from __future__ import annotations

import subprocess
import sys


def test_loading_nano_does_not_import_what_only_compilers_need() -> None:
    """It takes a second; torch does it behind one's back for shapes without numbers."""
    code = (
        "import sys; from resonate_audio import Resonate; Resonate.from_pretrained('nano', 'cpu'); "
        "print(*{'sympy', 'torch._dynamo', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
