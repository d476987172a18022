"""K12: on a full disk every command that writes ends in one line and leaves nothing half-written.

(What a server does there is K28.)
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pair_lists import write_pairs
from small_disk import fill, small_disk
from test_k04_paths import commands, line, sound
from tiny_corpus import TINY_MODEL, write_corpus
from tiny_grpo import write_grpo_recipe

from resonate_audio.cli.main import run
from resonate_audio.core.errors import DiskFullError
from resonate_audio.core.files import append_text, atomic_path

HOME = Path(__file__).parents[2] / "resonate_audio"
RATINGS = "rater,clip,system,prompt,axis,score,ms,order\n" + "".join(
    f"r{rater},{prompt}-{system},{system},p{prompt},OVL,{1 + (rater + prompt) % 5},900,{prompt}\n"
    for rater in range(3)
    for prompt in range(4)
    for system in "ab"
)
EVAL = ["--metric", "loud_judge:loudness", "--store", "{disk}/store.db"]
COMMANDS: dict[str, list[str]] = {
    "generate": ["generate", "dog", "rain", "-m", "{model}", "-o", "{disk}/x/", "--steps", "1"],
    "generate --spectrogram": [
        "generate", "dog", "-m", "{model}", "-o", "{disk}/x.wav", "--steps", "1", "--spectrogram",
    ],
    "replay": ["replay", "{in}/made.wav", "-o", "{disk}/x.wav", "-m", "{model}"],
    "demo": ["demo", "-o", "{disk}/demo", "-m", "{model}", "--steps", "1"],
    "data import": ["data", "import", "folder", "{in}/sounds", "-o", "{disk}/x.jsonl"],
    "data mix": ["data", "mix", "{in}/x.jsonl", "-o", "{disk}/x.jsonl"],
    "data check": ["data", "check", "{in}/x.jsonl", "-o", "{disk}/x.html", "--workers", "1"],
    "data shard": ["data", "shard", "{in}/x.jsonl", "-o", "{disk}/shards"],
    "data encode": ["data", "encode", "{in}/x.jsonl", "-o", "{disk}/shards", "-m", "{model}"],
    "eval generate": ["eval", "generate", "{in}/p.txt", "-o", "{disk}/x", "-m", "{model}"],
    "eval score": ["eval", "score", "{disk}/system", *EVAL],
    "eval distance": [
        "eval", "distance", "{disk}/system", "-r", "{in}/real", "-E", "nano-clap",
    ],
    "eval compare": ["eval", "compare", "{in}/system", "{in}/other", "--json", "{disk}/x.json"],
    "eval report": ["eval", "report", "{in}/system", "{in}/other", "-o", "{disk}/x.html"],
    "eval mos": ["eval", "mos", "{in}/ratings.csv", "--json", "{disk}/x.json"],
    "eval correlate": [
        "eval", "correlate", "{in}/rated.csv", "{in}/values.csv", "--json", "{disk}/x.json",
    ],
    "listen create": [
        "listen", "create", "{disk}/test", "-s", "a={in}/sounds", "-s", "b={in}/sounds",
        "-p", "ovl",
    ],
    "train vae": ["train", "vae", "--recipe", "{in}/vae.yaml"],
    "train vocoder": ["train", "vocoder", "--recipe", "{in}/vae.yaml"],
    "train pretrain": ["train", "pretrain", "--recipe", "{in}/vae.yaml"],
    "train grpo": ["train", "grpo", "--recipe", "{in}/grpo.yaml"],
    "train dpo": ["train", "dpo", "--recipe", "{in}/pairs.yaml"],
}  # fmt: skip
"""What is written goes to ``{disk}``; inputs lie elsewhere, but for what is added to."""
AS_ANOTHER = {
    **dict.fromkeys(("vary", "reword", "replace", "extend", "loop", "sequence"), "generate"),
    "keys add": "eval mos",
    "keys remove": "eval mos",
    "train sft": "train pretrain",
    "train distil": "train pretrain",
    "train nft": "train grpo",
    "train awm": "train grpo",
    "train bon": "train grpo",
    "convert": "a model",  # `test_a_door_leaves_what_was_there`
    "eval bench": "eval compare",  # one function writes both
    "listen results": "eval mos",
    "listen export": "listen create",
}
"""Commands that write by the same functions as another."""
WRITES_NOTHING = {
    "models list", "models fetch", "models remove", "play", "keys list", "doctor", "reward",
    "train plan", "data shards",
    "listen serve", "serve", "studio", "mcp",
}  # fmt: skip
"""Or what K28 is about."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Path]:
    """Everything that commands read."""
    place = tmp_path_factory.mktemp("in")
    for name in ("a", "b"):
        sound(place / "sounds" / f"{name}.wav", 300.0 + len(name))
        (place / "sounds" / f"{name}.txt").write_text("a tone")
    (place / "x.jsonl").write_text(line("a", "sounds/a.wav") + line("b", "sounds/b.wav"))
    (place / "p.txt").write_text("dog\nrain\n")
    for number in range(4):
        sound(place / "real" / f"{number}.wav", 200.0 * 2**number)
    (place / "ratings.csv").write_text(RATINGS)
    (place / "rated.csv").write_text(
        "Model,File Name,OVL\n" + "".join(f"m,{n}.wav,{1 + n % 4}\n" for n in range(6))
    )
    (place / "values.csv").write_text(
        "file,loud\n" + "".join(f"m/{n}.wav,{n / 7}\n" for n in range(6))
    )
    said = ["generate", "dog", "-m", str(tiny_model), "--steps", "1", "-o", str(place / "made.wav")]
    assert run(said) == 0
    store = ["--store", str(place / "store.db"), "--metric", "loud_judge:loudness"]
    for name in ("system", "other"):
        made = ["eval", "generate", str(place / "p.txt"), "-m", str(tiny_model), "--steps", "1"]
        assert run([*made, "-o", str(place / name), "--name", name]) == 0
        assert run(["eval", "score", str(place / name), *store]) == 0
    write_pairs(place / "pairs")
    (place / "corpus").mkdir()
    write_corpus(place / "corpus")
    return place


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A megabyte."""
    with small_disk(tmp_path_factory.mktemp("small") / "disk", "1m") as place:
        yield place


def lay(command: str, inputs: Path, disk: Path, model: Path) -> None:
    """Empty the disk but for what a command adds to, and write the recipes that name it."""
    for old in disk.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    if "{disk}/system" in COMMANDS[command]:
        shutil.copytree(inputs / "system", disk / "system")
    recipe = write_grpo_recipe(inputs, model)
    recipe["run"] |= {"output": str(disk / "run"), "num_steps": 2, "save_every": 1}
    write(inputs / "grpo.yaml", recipe)
    rest = {name: recipe[name] for name in ("model", "optim", "run")}
    pairs = {"pairs": str(inputs / "pairs" / "pairs.jsonl"), "pairs_per_step": 2}
    write(inputs / "pairs.yaml", rest | pairs)
    data = {"manifest": str(inputs / "corpus" / "manifest.jsonl"), "cache": str(disk / "cache")}
    write(inputs / "vae.yaml", {
        "preset": "nano-flow", "model": TINY_MODEL, "data": data, "run": recipe["run"],
    })  # fmt: skip


def write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(x.relative_to(folder)): x.read_bytes() for x in folder.rglob("*") if x.is_file()}


@pytest.mark.parametrize("leave", [0, 3000], ids=["full", "nearly full"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_on_a_full_disk_ends_in_one_line(
    command: str,
    leave: int,
    inputs: Path,
    disk: Path,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lay(command, inputs, disk, tiny_model)
    before = files_of(disk)
    filler = fill(disk, leave)
    places = {"in": inputs, "disk": disk, "model": tiny_model}
    code = run([part.format(**places) for part in COMMANDS[command]])
    said = capsys.readouterr().err
    filler.unlink()
    after = files_of(disk)
    if leave and code == 0:  # it needed less
        return
    assert code == 2, said
    assert said.splitlines()[-1].startswith("resonate: "), said
    assert "disk is full" in said, said
    half = [name for name in after if ".part" in name or Path(name).name.startswith(".lock")]
    assert not half
    for name in before:  # what was there is as it was, or whole and new
        assert name in after
        if name.endswith((".json", ".jsonl")):
            [json.loads(one) for one in after[name].splitlines() if name.endswith("l")]


def test_every_command_is_known_to_write_or_not() -> None:
    from typer.main import get_command

    from resonate_audio.cli.main import app

    def names(group: Any, before: str = "") -> Iterator[str]:
        for name, one in group.commands.items():
            if hasattr(one, "commands"):
                yield from names(one, f"{before}{name} ")
            else:
                yield before + name

    known = {name.partition(" --")[0] for name in COMMANDS} | set(AS_ANOTHER) | WRITES_NOTHING
    assert set(names(get_command(app))) == known
    assert len(list(commands())) == len(known)


JUDGE = """
from pathlib import Path
from small_disk import fill

def fills(samples, rate_hz, prompts):
    fill(Path({disk!r}))
    return [float(row) for row in range(len(prompts))]
"""


def test_a_training_whose_disk_fills_up_ends_in_one_line(
    inputs: Path,
    disk: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is full when the first take is judged: metrics and checkpoints come after that."""
    lay("train grpo", inputs, disk, tiny_model)
    (inputs / "k12_judge.py").write_text(JUDGE.format(disk=str(disk)))
    monkeypatch.chdir(inputs)
    command = ["train", "grpo", "--recipe", str(inputs / "grpo.yaml")]
    assert run([*command, "--set", "reward=k12_judge:fills"]) == 2
    said = capsys.readouterr().err
    sys.modules.pop("k12_judge")
    assert "the disk is full" in said.splitlines()[-1], said
    (disk / "everything-else").unlink()
    assert sorted(os.listdir(disk / "run")) == ["checkpoints", "recipe.yaml"] or not any(
        ".part" in name for name in files_of(disk)
    )


def a_file(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(bytes(200_000))


def a_line(path: Path) -> None:
    append_text(path, "x" * 200_000 + "\n")


def a_model(path: Path) -> None:
    from resonate_audio.model.folder import writing_model

    with writing_model(path, overwrite=True) as temporary:
        (temporary / "weights").write_bytes(bytes(200_000))


@pytest.mark.parametrize("use", [a_file, a_line, a_model])
def test_a_door_leaves_what_was_there(use: Callable[[Path], None], disk: Path) -> None:
    for old in disk.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    path = disk / "x"
    if use is not a_model:
        path.write_text("before\n")
    before = files_of(disk)
    filler = fill(disk, 100_000)
    with pytest.raises(DiskFullError):
        use(path)
    filler.unlink()
    assert files_of(disk) == before


BESIDE_THE_DOOR = {"write_text", "write_bytes", "touch", "savefig", "copyfile", "save_file"}
OWN_DOORS = {
    "core/files.py",
    "model/checkpoint.py",  # gives system errors, to be used inside of the door
    "audio/io.py",  # the probe of a folder
    "audio/spectrogram.py",  # into memory
    "model/folder.py",  # parts of a model, inside of `writing_model`
    "model/official/clap.py",  # the same
    "model/published/ready.py",  # the same
}


def test_nobody_writes_beside_the_doors() -> None:
    """A call that writes lies inside of a ``with atomic_path(…)`` or ``writing_model(…)``."""
    found = set()
    for path in HOME.rglob("*.py"):
        place = path.relative_to(HOME).as_posix()
        if place not in OWN_DOORS:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= {f"{place}: {ast.unparse(node)[:60]}" for node in outside(tree)}
    assert not found


def outside(node: ast.AST) -> Iterator[ast.AST]:
    """Calls that write, and no door is open around them."""
    if isinstance(node, ast.With) and any("atomic_" in ast.unparse(x) for x in node.items):
        return
    doors = ("_new_folder", "writing_model")
    if isinstance(node, ast.With) and any(
        door in ast.unparse(x) for x in node.items for door in doors
    ):
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        opens = node.func.attr == "open" and any(
            isinstance(x, ast.Constant) and str(x.value)[:1] in "wax" for x in node.args[:1]
        )
        if opens or node.func.attr in BESIDE_THE_DOOR:
            yield node
    for child in ast.iter_child_nodes(node):
        yield from outside(child)
