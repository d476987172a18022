"""Nobody parses, decodes or opens beside the doors, and no reader is without a row in a table."""

import ast
from collections.abc import Iterator
from pathlib import Path

import reader_tables

HOME = Path(__file__).parents[2] / "resonate_audio"
DOORS = {
    "core/documents/text.py",
    "core/documents/json_text.py",
    "core/documents/json_stream.py",
    "core/documents/yaml_text.py",
    "core/documents/csv_text.py",
    "core/documents/arrays.py",
    "core/files.py",
    "audio/decoding.py",
    "audio/io.py",
    "audio/embedded.py",
    "model/checkpoint.py",
}
FORBIDDEN = {
    ("json", "load"), ("json", "loads"), ("json", "JSONDecoder"),
    ("yaml", "load"), ("yaml", "safe_load"), ("yaml", "dump"), ("yaml", "safe_dump"),
    ("csv", "reader"), ("csv", "DictReader"), ("tomllib", "load"), ("tomllib", "loads"),
    ("pickle", "load"), ("pickle", "loads"), ("torch", "load"), ("np", "load"),
    ("np", "genfromtxt"), ("np", "loadtxt"), ("np", "fromfile"),
    ("soundfile", "read"), ("soundfile", "info"), ("soundfile", "write"), ("soundfile", "blocks"),
    ("soundfile", "SoundFile"), ("Tokenizer", "from_file"), ("Tokenizer", "from_str"),
    ("zlib", "decompress"), ("gzip", "open"), ("lzma", "open"), ("literal_eval", ""),
    ("marshal", "loads"), ("tarfile", "open"),
}  # fmt: skip
"""Parsers and decoders: each is called behind one door alone."""
NAMES_OF_DOORS = {
    "read_bytes", "read_text", "read_lines", "open_regular", "read_json", "read_object",
    "read_json_lines", "parse_json", "parse_object", "parse_yaml", "read_yaml", "read_csv",
    "csv_rows", "parse_csv", "header_of", "JsonText", "read_array", "read_sound", "decode_sound",
    "read_header", "read_length", "load_config", "read_weights", "read_tokenizer", "safe_open",
    "parse_recipe", "apply_overrides", "file_sha256", "read_prompt_rows", "read_audio",
    "decode_audio", "read_prompts", "read_prompt_set", "stream_manifest", "parse_line",
}  # fmt: skip
"""Who calls one of these is a reader."""
COVERED_BY = {
    "audio/decoding.py": "a sound",
    "cli/doctor.py": "a sound",
    "cli/serve.py": "an option --set",
    "cli/train.py": "a recipe",
    "core/documents/text.py": "prompts of text",
    "core/files.py": "weights",
    "data/check.py": "a manifest",
    "data/encode.py": "a manifest",
    "data/mix.py": "a manifest",
    "data/shards/workers.py": "a manifest",
    "evaluation/distances/set_values.py": "clips of a system",
    "evaluation/people/rated_clips.py": "rated clips",
    "evaluation/people/ratings.py": "ratings",
    "evaluation/report/clips.py": "a sound",
    "rewards/fingerprints.py": "weights",
    "model/text_encoder.py": "a tokenizer",
    "nano/bundle.py": "weights",
    "nano/text_encoder.py": "a tokenizer",
    "parity/flow.py": "a golden file",
    "rewards/clap/microsoft.py": "weights",
    "serving/sounds/routes.py": "an upload to the judge",
    "training/loop/contents.py": "weights",
    "training/loop/start.py": "a recipe",
    "training/recipes/model.py": "weights",
    "training/recipes/distil.py": "weights",
    "cli/edit.py": "a sound",
    "model/adapter.py": "weights",
    "serving/sounds/forms.py": "an upload to the judge",
    "serving/sounds/library.py": "an upload to the judge",
    "serving/sounds/sending.py": "a sound",
    "serving/sounds/service.py": "a sound",
    "cli/mcp/tools.py": "a sound",
    "model/official/clap.py": "weights",
    "model/official/folder.py": "official weights",
    "model/hub_client.py": "a model's index",
    "cli/play.py": "a sound",
    "cli/pipes.py": "a sound",
    "cli/sound_list.py": "a list of sounds of CSV",
    "serving/keys.py": "keys of a server",
    "training/recipes/reinforce.py": "prompts of JSON lines",
    "nano/judges/lalm.py": "a tokenizer",
    "pipeline/guests/guest.py": "a model's index",
    "pipeline/guests/stable_audio.py": "a model's index",
    "pipeline/guests/tangoflux.py": "weights",
    "nano/judges/training/captions.py": "a tokenizer",
    # Files of a reader, and the rows of `reader_tables` (or the tests) that walk over it.
    "audio/embedded.py": "a recipe in a sound",
    "audio/io.py": "a sound",
    "cli/evaluate/generate.py": "a prompt set of JSON lines",
    "cli/evaluate/listening.py": "ratings",
    "cli/evaluate/score.py": "a prompt set of JSON lines",
    "cli/generate.py": "prompts of text",
    "cli/listen.py": "prompts of a listening test",
    "cli/replay.py": "a sound's recipe",
    "cli/reward.py": "a sound",
    "core/config.py": "a recipe",
    "core/documents/csv_text.py": "values of metrics",
    "core/documents/json_stream.py": "a corpus' table of JSON",
    "core/documents/json_text.py": "a manifest",
    "core/documents/yaml_text.py": "a recipe",
    "data/corpora.py": "a corpus' table of CSV",
    "data/inspection.py": "a clip that is checked",
    "data/manifest.py": "a manifest",
    "data/prompts.py": "prompts of JSON",
    "data/shards/read.py": "a clip of a shard",
    "data/shards/write.py": "an index of shards",
    "data/waveforms.py": "a cache of sounds",
    "evaluation/clips/folder.py": "clips of a system",
    "evaluation/clips/generate.py": "a sound's length",
    "evaluation/clips/prompt_sets.py": "a prompt set of JSON",
    "evaluation/people/lines.py": "rated clips",
    "evaluation/scores/scored.py": "scores of clips",
    "evaluation/scores/sounds.py": "samples to be scored",
    "evaluation/tta_bench/prompts.py": "a file of TTA-Bench",
    "model/checkpoint.py": "weights",
    "model/folder.py": "a model's index",
    "model/official/convert.py": "official weights",
    "nano/judges/sounds.py": "the corpus of nano",
    "nano/known_answer.py": "nano's known answer",
    "parity/check.py": "a golden file",
    "rewards/audio_llm/rubric.py": "items of a rubric",
    "rewards/small/judge.py": "a judge's configuration",
    "serving/listening/app.py": "an upload to a listening test",
    "serving/listening/test.py": "clips of a listening test",
    "serving/sounds/shelf.py": "weights that are counted",
    "serving/uploads.py": "an upload to the judge",
    "training/algorithms/pairs.py": "pairs",
    "training/loop/checkpoint.py": "a checkpoint of a run",
    "training/loop/progress.py": "metrics of a training",
    "training/loop/track.py": "a run's id at its tracker",
    "training/reinforce/run_log.py": "metrics of a run",
}
NO_INPUT = {
    "core/room.py",  # a file of the system
    "pipeline/edit.py",  # opens sounds through read_audio, which has a row
    "cli/data/mix.py",  # an option that is called as a reader is
    "cli/demo/teach.py",
    "data/latent_cache.py",
    "data/check_page.py",  # asks whether what is in the way is a page of ours; test_check has it
    "evaluation/scores/store.py",  # a database of our own
    "serving/listening/answers.py",
}
"""Readers of what a row above has read or written already, or of files of the package."""


def calls(path: Path) -> Iterator[tuple[str, str, int]]:
    """Owner, name and line of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            yield name, node.func.attr, node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, "", node.lineno


def files() -> Iterator[tuple[str, Path]]:
    for path in sorted(HOME.rglob("*.py")):
        yield path.relative_to(HOME).as_posix(), path


def test_no_parser_is_called_beside_its_door() -> None:
    found = [
        f"{name}:{line}: {owner}.{called}"
        for name, path in files()
        for owner, called, line in calls(path)
        if (owner, called) in FORBIDDEN and name not in DOORS
    ]
    assert found == [], "read it through resonate_audio.core.documents or audio.decoding"


def test_lines_are_split_by_line_feeds_alone() -> None:
    """``splitlines`` also splits at U+2028, U+0085 and six more, which may stand in a text."""
    messages = {"training/loop/start.py", "data/ray_map.py"}  # of other programs, shown in part
    found = [
        f"{name}:{line}"
        for name, path in files()
        for _, called, line in calls(path)
        if called == "splitlines" and name not in messages
    ]
    assert found == []


def test_no_file_is_opened_for_reading_beside_the_door() -> None:
    """A pipe never ends, and a device is larger than any memory: `core.files.open_regular`."""
    opened = {"read_text", "read_bytes", "open"}
    found = set()
    for name, path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            called = function.attr if isinstance(function, ast.Attribute) else ""
            plain = isinstance(function, ast.Name) and function.id == "open"
            text = ast.unparse(node)
            reads = ("'rb'", "'r'", "encoding=", "O_RDONLY")
            if not plain and (
                called not in opened or (called == "open" and not any(r in text for r in reads))
            ):
                continue
            writes = any(f"'{mode}" in text for mode in ("w", "a", "x"))
            own = "files(" in text or "webbrowser" in text or "self._open" in text
            if not writes and not own and name not in DOORS:
                found.add(f"{name}: {text[:60]}")
    assert found <= OWN_FILES, found - OWN_FILES


OWN_FILES = {
    "serving/ranges.py: sound.open('rb')",  # a sound of the library, whose size is known
    "serving/pages.py: (here / 'bar.html').read_text('utf-8')",  # of the package
    "serving/pages.py: (here / 'page.html').read_text('utf-8')",
    "core/processor.py: path.read_text(encoding='utf-8', errors='replace')",  # /proc/cpuinfo
    "cli/demo/player.py: path.read_bytes()",  # sounds that this command has just made
    "cli/demo/command.py: plan.path.read_bytes()",
    "cli/demo/command.py: Image.open(picture)",
    "serving/listening/app.py: path.read_bytes()",  # a file that the line above wrote
    "data/shards/read.py: os.open(self.path / name, os.O_RDONLY)",  # of the size of the index
    "cli/main.py: os.open(os.devnull, os.O_WRONLY)",
}


def test_every_reader_has_a_row() -> None:
    """Any function of a file that calls a door is a reader, and some table walks over it."""
    rows = {member.name for member in reader_tables.FILES}
    readers = {
        name
        for name, path in files()
        if {owner for owner, called, _ in calls(path) if not called} & NAMES_OF_DOORS
        or {called for _, called, _ in calls(path)} & (NAMES_OF_DOORS - {"read_text", "read_bytes"})
    }
    unknown = readers - COVERED_BY.keys() - NO_INPUT
    assert unknown == set(), "give it a row in reader_tables, and its name here"
    assert set(COVERED_BY.values()) <= rows, set(COVERED_BY.values()) - rows
    assert COVERED_BY.keys() <= {name for name, _ in files()}
