"""What each edit does to a sound, to hear and see: the table in docs/edit.md.

    python benchmarks/edit_sounds.py

Writes ``docs/sounds/edit-*`` and prints the table. `nano` as it comes, one seed, one source.
"""

from __future__ import annotations

import numpy as np
from linked_sounds import linked, write_linked

from resonate_audio import Audio, Resonate

PROMPT, SEED = "a dog barks", 1
ROUNDS = 3
"""How often a loop is played."""


def main() -> None:
    """Make the sounds, write them, print the table."""
    model = Resonate.from_pretrained("nano", device="cpu")
    [source] = model.generate(PROMPT, duration_s=4.0, seeds=SEED)
    [wind] = model.generate("wind blows", duration_s=4.0, seeds=SEED)
    rows = [
        ("`vary`, strength 0.4", source, model.vary(source, 0.4, seeds=SEED)[0]),
        ("`vary`, strength 0.8", source, model.vary(source, 0.8, seeds=SEED)[0]),
        (
            "`replace`, 1.5 to 3 s: “a bell rings”",
            source,
            model.replace(source, [(1.5, 3.0)], "a bell rings", seeds=SEED)[0],
        ),
        (
            "`reword`: “a cat meows”",
            source,
            model.reword(source, "a cat meows", PROMPT, seeds=SEED)[0],
        ),
        ("`extend`, 4 s after", wind, model.extend(wind, after_s=4.0, seeds=SEED)[0]),
        ("`loop`, played three times", wind, played(model.loop(wind, seeds=SEED)[0])),
        (
            "`loop` of “rain falls on leaves”, 2 s, played three times",
            None,
            played(model.loop("rain falls on leaves", 2.0, seeds=SEED)[0]),
        ),
        (
            "`sequence`: 3 s of “rain falls”, 3 s of “a rooster crows”",
            None,
            model.sequence([(0, 3, "rain falls"), (3, 6, "a rooster crows")], seeds=SEED)[0],
        ),
        (
            "`generate`, 30 s of “rain falls on leaves”",
            None,
            model.generate("rain falls on leaves", duration_s=30.0, seeds=SEED)[0],
        ),
    ]
    print("| | before | after |\n|---|---|---|")
    for number, (what, before, after) in enumerate(rows, 1):
        longest_s = max(one.duration_s for one in (before, after) if one is not None)
        cells = []
        for side, sound in (("before", before), ("after", after)):
            if sound is None:
                cells.append("")
                continue
            name = f"edit-{number}-{side}"
            write_linked(name, sound, longest_s)
            cells.append(linked(name, f"{what.replace('`', '')}, {side}"))
        print(f"| {what} | {' | '.join(cells)} |")


def played(loop: Audio) -> Audio:
    """A loop, a few times."""
    return Audio(np.tile(loop.samples, ROUNDS), loop.sample_rate_hz)


if __name__ == "__main__":
    main()
