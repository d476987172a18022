"""K6: what decides a number is its content: a change is noticed, another place is none."""

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_k04_paths import configs, sound
from tiny_grpo import write_grpo_recipe

from resonate_audio.core.config import WRITTEN, FrozenConfig, parse_config
from resonate_audio.core.errors import TrainingError
from resonate_audio.data.manifest import read_manifest
from resonate_audio.data.waveforms import cached_waveforms
from resonate_audio.rewards.fingerprints import hash_code, hash_judge
from resonate_audio.rewards.function import open_function
from resonate_audio.training.loop.contents import check_same_run, contents_of, paths_of
from resonate_audio.training.loop.run_config import TrainerConfig
from resonate_audio.training.recipes.pairs import PairRecipe
from resonate_audio.training.recipes.pretrain import PretrainRecipe
from resonate_audio.training.recipes.reinforce import ReinforceRecipe, train_reinforce

JUDGE = "def score(samples, rate_hz, prompts):\n    return [{value}] * len(prompts)\n"
HELPER = "WEIGHT = 1.0\n"
# What a judge of one's own may import, and the file whose change must be seen.
IMPORTS: dict[str, tuple[str, str]] = {
    "a module beside it": ("from k06_help import WEIGHT", "k06_help.py"),
    "a module by its name": ("import k06_help", "k06_help.py"),
    "a module under another name": ("import k06_help as h", "k06_help.py"),
    "a module in a package": ("from k06_pkg.deep import WEIGHT", "k06_pkg/deep.py"),
    "a module of a package": ("from k06_pkg import deep", "k06_pkg/deep.py"),
    "the package around a module": ("from k06_pkg import deep", "k06_pkg/__init__.py"),
    "what a helper imports": ("import k06_chain", "k06_help.py"),
    "an import when it is called": ("def late():\n    import k06_help", "k06_help.py"),
    "an import that may fail": (
        "try:\n    import k06_help\nexcept ImportError: pass", "k06_help.py"
    ),
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of somebody's code, where they are."""
    (tmp_path / "k06_pkg").mkdir()
    for name in ("k06_help.py", "k06_pkg/__init__.py", "k06_pkg/deep.py", "unrelated.py"):
        (tmp_path / name).write_text(HELPER)
    (tmp_path / "k06_chain.py").write_text("import k06_help\nimport json\nimport numpy\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def judge(text: str, name: str = "k06_judge") -> Any:
    """A judge that is read anew, as another process would."""
    for known in [x for x in sys.modules if x.startswith("k06_")]:
        del sys.modules[known]
    file = Path(*name.split(".")).with_suffix(".py")
    file.write_text(f"{text}\n{JUDGE.format(value=1.0)}")
    importlib.invalidate_caches()
    return open_function(f"{name}:score")


@pytest.mark.parametrize("hash_of", [hash_code, hash_judge])
@pytest.mark.parametrize("kind", IMPORTS)
def test_a_change_of_what_a_judge_imports_is_a_change_of_it(
    kind: str, hash_of: Callable[[Any], str], here: Path
) -> None:
    text, helper = IMPORTS[kind]
    before = hash_of(judge(text))
    (here / "unrelated.py").write_text("WEIGHT = 3.0\n")
    assert hash_of(judge(text)) == before
    (here / helper).write_text("WEIGHT = 2.0\n")
    assert hash_of(judge(text)) != before


def test_relative_imports_of_a_judge_in_a_package_count(here: Path) -> None:
    for text in ("from . import deep", "from .deep import WEIGHT"):
        before = hash_code(judge(text, "k06_pkg.inner"))
        (here / "k06_pkg" / "deep.py").write_text(f"# {text}\n{HELPER}")
        assert hash_code(judge(text, "k06_pkg.inner")) != before


def test_the_libraries_of_a_judge_do_not_count(here: Path) -> None:
    from resonate_audio.rewards.fingerprints import _helpers

    module = sys.modules[judge("import json, numpy, torch, resonate_audio")._function.__module__]
    assert _helpers([module]) == {}


# --- a run that goes on ---------------------------------------------------------------------------


def recipes() -> list[type[FrozenConfig]]:
    return [x for x in configs() if issubclass(x, TrainerConfig)]


def values_of(recipe: type[FrozenConfig], folder: Path) -> dict[str, Any]:
    """Every path of a recipe, laid out as a file."""
    if recipe is PretrainRecipe:
        parts = ("vae", "vocoder", "text_encoder", "transformer")
        return {
            "preset": "nano-flow",
            "data": {"manifest": str(folder / "manifest"), "cache": str(folder / "cache")},
            "weights": {part: str(folder / part) for part in parts},
            "run": {"output": str(folder / "run")},
        }
    common = {
        "evaluation": {"prompts": str(folder / "held-out")},
        "reward": "nano-clap",
        "run": {"output": str(folder / "run")},
    }
    if recipe is PairRecipe:
        return common | {"pairs": str(folder / "pairs")}
    return common | {"prompts": str(folder / "prompts"), "algorithm": {"kind": "grpo"}}


@pytest.mark.parametrize("kind", [PretrainRecipe, ReinforceRecipe, PairRecipe])
def test_every_file_that_a_recipe_reads_is_known_by_its_content(
    kind: type[FrozenConfig], tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    config = parse_config(kind, values_of(kind, tmp_path / "there"), "a recipe")
    read = [name for name, _, written in paths_of(config) if not written]
    assert read
    for _, path, written in paths_of(config):
        if not written:
            path.write_text(str(path.name))
    before = contents_of(config)
    assert sorted(before) == sorted(read)
    saved = config.model_dump(mode="json")
    shutil.copytree(tmp_path / "there", tmp_path / "elsewhere")
    moved = parse_config(kind, values_of(kind, tmp_path / "elsewhere"), "a recipe")
    check_same_run(saved, moved, before, contents_of(moved))
    for name, path, written in paths_of(moved):
        if not written:
            path.write_text("another")
            with pytest.raises(TrainingError, match=f"the content of {name} changed"):
                check_same_run(saved, moved, before, contents_of(moved))
            path.write_text(str(path.name))


def test_a_folder_counts_with_all_its_files(tmp_path: Path) -> None:
    values = values_of(PretrainRecipe, tmp_path)
    for part in ("vae", "transformer"):
        (tmp_path / part / "deep").mkdir(parents=True)
        (tmp_path / part / "deep" / "weights").write_text(part)
    config = parse_config(PretrainRecipe, values, "a recipe")
    before = contents_of(config)
    (tmp_path / "vae" / "deep" / "weights").write_text("another")
    assert {name for name, value in contents_of(config).items() if value != before[name]} == {
        "weights.vae"
    }


def test_a_checkpoint_without_contents_goes_by_places(tmp_path: Path) -> None:
    config = parse_config(ReinforceRecipe, values_of(ReinforceRecipe, tmp_path), "a recipe")
    saved = config.model_dump(mode="json")
    check_same_run(saved, config, {}, contents_of(config))
    with pytest.raises(TrainingError, match="prompts changed since"):
        check_same_run(saved | {"prompts": "elsewhere"}, config, {}, contents_of(config))


def test_sounds_of_a_manifest_count_and_their_place_does_not(tmp_path: Path) -> None:
    line = {"audio_id": "a", "audio_path": "a.wav", "caption": "a tone"}
    contents = []
    for name, pitch_hz, caption in (
        ("one", 440.0, "a tone"),
        ("copy", 440.0, "a tone"),
        ("other sound", 441.0, "a tone"),
        ("other words", 440.0, "a hum"),
    ):
        sound(tmp_path / name / "a.wav", pitch_hz)
        manifest = tmp_path / name / "x.jsonl"
        manifest.write_text(json.dumps(line | {"caption": caption}) + "\n")
        cache = tmp_path / name / "cache"
        waves = cached_waveforms(read_manifest(manifest), 8000, cache, lambda text: None)
        contents.append(waves.content())
    assert contents[0] == contents[1]
    assert len(set(contents)) == 3


def test_every_recipe_says_which_paths_are_written() -> None:
    """A path of a recipe is an input, which counts, unless it says that it is not."""
    written = {
        f"{config.__name__}.{name}"
        for config in configs()
        for name, field in config.model_fields.items()
        if WRITTEN in field.metadata
    }
    assert written == {"RunConfig.output", "DataConfig.cache", "JudgeData.cache"}
    assert {PretrainRecipe, ReinforceRecipe, PairRecipe} <= set(recipes())


Change = Callable[[dict[str, Any], Path], None]


def other_prompts(recipe: dict[str, Any], folder: Path) -> None:
    Path(recipe["prompts"]).write_text("dog\nrain\nbell\ncat\n")


def other_held_out(recipe: dict[str, Any], folder: Path) -> None:
    Path(recipe["evaluation"]["prompts"]).write_text("cat\n")


def other_judge(recipe: dict[str, Any], folder: Path) -> None:
    (folder / "k06_judge.py").write_text("from k06_help import WEIGHT\n" + JUDGE.format(value=2))


def other_helper(recipe: dict[str, Any], folder: Path) -> None:
    (folder / "k06_help.py").write_text("WEIGHT = 2.0\n")


def judge_of_another_name(recipe: dict[str, Any], folder: Path) -> None:
    recipe["reward"] = "loud_judge:loudness"


def moved_prompts(recipe: dict[str, Any], folder: Path) -> None:
    recipe["prompts"] = str(Path(recipe["prompts"]).rename(folder / "elsewhere.txt"))


def moved_model(recipe: dict[str, Any], folder: Path) -> None:
    recipe["model"] = str(shutil.copytree(recipe["model"], folder / "a model elsewhere"))


OF_THE_JUDGE = "the content of reward .its code and weights. changed"
CHANGES: dict[str, tuple[Change, str | None]] = {
    "prompts": (other_prompts, "the content of prompts changed"),
    "prompts of the evaluation": (other_held_out, "the content of evaluation.prompts changed"),
    "the judge": (other_judge, OF_THE_JUDGE),
    "what the judge imports": (other_helper, OF_THE_JUDGE),
    "the name of the judge": (
        judge_of_another_name, "^reward changed .*was k06_judge:score, is now loud_judge:loudness"
    ),
    "the place of the prompts": (moved_prompts, None),
    "the place of the model": (moved_model, None),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_run_goes_on_only_with_what_it_began_with(
    what: str, here: Path, tiny_model: Path
) -> None:
    judge("from k06_help import WEIGHT")
    recipe = write_grpo_recipe(here, tiny_model)
    (here / "held-out.txt").write_text("dog\n")
    recipe |= {"reward": "k06_judge:score", "evaluation": {"prompts": str(here / "held-out.txt")}}
    recipe["run"] |= {"num_steps": 1, "save_every": 1}
    said: list[str] = []
    train_reinforce(parse_config(ReinforceRecipe, recipe, "a recipe"), said.append)
    change, told = CHANGES[what]
    change(recipe, here)
    for known in [x for x in sys.modules if x.startswith("k06_")]:
        del sys.modules[known]
    importlib.invalidate_caches()
    again = parse_config(ReinforceRecipe, recipe, "a recipe")
    if told is None:
        assert train_reinforce(again, said.append).finished
    else:
        with pytest.raises(TrainingError, match=told):
            train_reinforce(again, said.append)
