"""Write the description of the API to a file.

python -m resonate_audio.serving.describe docs/openapi.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from resonate_audio.core.files import atomic_path
from resonate_audio.serving.app import openapi_text


def main() -> None:
    """Write the file given."""
    parser = argparse.ArgumentParser(prog="describe", description="Write the OpenAPI file.")
    parser.add_argument("file", type=Path)
    with atomic_path(parser.parse_args().file) as temporary:
        temporary.write_text(openapi_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
