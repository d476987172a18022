"""What Python takes of a wrong type is refused in words; asked without the tests' type checks."""

from __future__ import annotations

import subprocess
import sys

ASK = """
import json, sys
from resonate_audio.core.errors import ResonateError
from resonate_audio.pipeline.request import make_batch

for arguments in (
    (5,), (None,), ([None],), (b"dog",), ("a\\ud800",), ("a", 3), ("a", [5]),
    ("a", "", 1.5), ("a", "", "1"), ("a", "", True),
):
    try:
        make_batch(*arguments)
    except ResonateError as error:
        print(error)
print(len(make_batch(("a", "b"), ["c", "d"], (1, 2)).prompts))
"""
SAID = """\
prompt 5: expected a text, or a list of texts
prompt None: expected a text, or a list of texts
prompt 1 of 1 is None: expected a text
prompt b'dog': expected a text, or a list of texts
prompt 1 of 1 holds half of a surrogate pair, which is no text
negative prompt 3: expected a text, or a list of texts
negative prompt 1 of 1 is 5: expected a text
seed 1.5: expected a whole number from 0 to 9223372036854775807
seed 1: expected a whole number from 0 to 9223372036854775807
seed True: expected a whole number from 0 to 9223372036854775807
2
"""


def test_a_text_or_seed_of_another_type_is_told_in_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout) == ("", SAID)
