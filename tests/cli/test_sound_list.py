"""`resonate generate --list`: a table of sounds becomes files."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from tiny_model import write_tiny_adapter

from resonate_audio.audio.io import decode_audio, read_audio, read_recipe
from resonate_audio.cli.main import run
from resonate_audio.cli.options import Loading, Making, Target
from resonate_audio.cli.sound_list import COLUMNS, read_list
from resonate_audio.core.edit import Finish
from resonate_audio.core.errors import ManifestError

TABLE = """# what the yard needs
name,prompt,negative,duration,takes,loop,seed,steps,trim
dog,a dog barks,,,2,,,,
# the gate is missing

rain,"rain, on leaves",wind,0.6,,yes,,1,
bell,bell,,,,no,40,,-50
dog-2,a dog barks,,,,,,,
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sounds.csv").write_text(TABLE, encoding="utf-8")
    return tmp_path


def making(finish: Finish | None = None) -> Making:
    return Making({"num_inference_steps": 2}, finish, Target(), Loading(), 1, None, "hiss")


def generate(model: Path, *arguments: str) -> int:
    settings = ["--model", str(model), "--device", "cpu", "--steps", "2"]
    return run(["generate", *arguments, *settings])


def test_a_cell_replaces_what_the_command_line_says_and_an_empty_one_does_not(here: Path) -> None:
    dog, rain, bell, again = read_list(here / "sounds.csv", making(Finish(loudness_lufs=-16.0)))
    assert (dog.name, dog.negative, dog.takes, dog.seed) == ("dog", "hiss", 2, None)
    assert (rain.prompt, rain.negative, rain.is_loop) == ("rain, on leaves", "wind", True)
    assert rain.asked == {"num_inference_steps": 1, "duration_s": 0.6}
    assert (bell.seed, bell.is_loop, bell.asked) == (40, False, {"num_inference_steps": 2})
    assert bell.finish == Finish(trim_db=-50.0, loudness_lufs=-16.0)
    assert again.finish == Finish(loudness_lufs=-16.0)


def test_what_the_command_line_says_of_ends_is_not_done_to_loops(here: Path) -> None:
    finish = Finish(trim_db=-50.0, fade_s=0.1, loudness_lufs=-16.0)
    dog, rain, _, _ = read_list(here / "sounds.csv", making(finish))
    assert (dog.finish, rain.finish) == (finish, Finish(loudness_lufs=-16.0))


def test_lines_of_json_say_the_same_with_types(here: Path) -> None:
    (here / "a.jsonl").write_text(
        '# comment\n{"prompt": "rain", "takes": 3, "loop": true, "guidance": 2, "seed": null}\n'
    )
    [rain] = read_list(here / "a.jsonl", making())
    assert (rain.takes, rain.is_loop, rain.seed) == (3, True, None)
    assert rain.asked["guidance_scale"] == 2.0


def test_a_list_becomes_files_and_what_exists_is_kept(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--list", "sounds.csv", "-o", "out/{name}-{seed}.flac", "--loudness", "-23"]
    assert generate(tiny_model, *wanted) == 0
    files = ["out/dog-0.flac", "out/dog-1.flac", "out/rain-0.flac", "out/bell-40.flac",
             "out/dog-2-2.flac"]  # fmt: skip
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()[1:]] == files
    assert said.out.count("-23.0 LUFS") == 5
    assert "5 made, 0 kept" in said.err
    rain = read_recipe(here / "out/rain-0.flac")
    assert rain is not None
    assert rain.edit is not None
    assert (rain.edit.kind, rain.num_inference_steps, rain.duration_s) == ("loop", 1, 0.6)

    first = {name: (here / name).read_bytes() for name in files}
    (here / "out/bell-40.flac").unlink()
    (here / "sounds.csv").write_text(TABLE.replace(",wind,", ",door,"), encoding="utf-8")
    assert generate(tiny_model, *wanted) == 0
    said = capsys.readouterr()
    assert "1 made, 4 kept" in said.err
    states = [line.split("LUFS")[1].strip() for line in said.out.splitlines()[1:]]
    assert states == ["kept", "kept", "kept; the list says otherwise", "made", "kept"]
    del first["out/bell-40.flac"]  # made in another batch: the same sound to rounding
    assert all((here / name).read_bytes() == data for name, data in first.items())


def test_what_a_line_leaves_open_is_the_models_own_choice(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "one.csv").write_text("prompt,loop\ndog,\nrain,yes\n")
    assert generate(tiny_model, "--list", "one.csv", "--duration", "0.7") == 0
    assert generate(tiny_model, "--list", "one.csv", "--duration", "0.7") == 0
    assert "otherwise" not in capsys.readouterr().out
    assert generate(tiny_model, "--list", "one.csv") == 0
    assert capsys.readouterr().out.count("kept; the list says otherwise") == 2


def test_a_list_that_is_complete_loads_no_model(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "one.csv").write_text("prompt\ndog\n")
    assert generate(tiny_model, "--list", "one.csv") == 0
    assert (here / "dog_0.wav").exists()
    capsys.readouterr()
    assert generate(tiny_model, "--list", "one.csv") == 0
    assert capsys.readouterr().err == "0 made, 1 kept that existed\n"


def test_a_list_is_piped_in_and_its_sound_is_piped_out(
    tiny_model: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"prompt,seed\ndog,7\n")))
    assert generate(tiny_model, "--list", "-", "-o", "-") == 0
    piped = capsysbinary.readouterr().out
    assert len(piped) == 8 + int.from_bytes(piped[4:8], "little")  # and no table after it
    audio = decode_audio(piped, "stdout")
    assert audio.recipe is not None
    assert (audio.recipe.prompt, audio.recipe.seed) == ("dog", 7)
    assert [path.name for path in here.iterdir()] == ["sounds.csv"]


def test_whole_numbers_of_a_spreadsheet_and_its_empty_rows_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"prompt,takes,seed\ndog,2.0,1e3\n,,\nrain,1,{2**62 + 1}\n")
    dog, rain = read_list(tmp_path / "a.csv", making())
    assert (dog.takes, dog.seed, rain.seed) == (2, 1000, 2**62 + 1)


def test_a_file_in_the_way_that_is_no_sound_is_told_before_the_work(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a.csv").write_text("name,prompt\na,dog\nb,rain\n")
    (here / "a.wav").write_text("junk")
    assert generate(tiny_model, "--list", "a.csv", "-o", "{name}.wav") == 2
    assert "a.wav" in capsys.readouterr().err
    assert not (here / "b.wav").exists()


BAD_CELLS = [
    ("prompt,volume\ndog,3\n", "a.csv, line 2: the column volume is unknown; there are prompt,"),
    ("prompt,seed\ndog,1\nrain,abc\n", "a.csv, line 3, column seed: 'abc' is no number"),
    ("prompt,takes\ndog,2.5\n", "column takes: 2.5: expected a whole number from 1 to 1000"),
    ("prompt,takes\ndog,0\n", "column takes: 0: expected a whole number from 1"),
    ("prompt,seed\ndog,-1\n", "column seed: -1: expected a whole number from 0"),
    ("prompt,steps\ndog,0\n", "column steps: 0 inference steps: expected a whole number from 1"),
    ("prompt,guidance\ndog,nan\n", "column guidance: 'nan' is no number"),
    ("prompt,solver\ndog,magic\n", "column solver: solver magic: expected euler"),
    ("prompt,loop\ndog,maybe\n", "column loop: 'maybe': expected yes or no"),
    ("prompt,trim\ndog,5\n", "column trim: trim_db 5: expected a number from -120 to -6"),
    ("prompt,loudness,normalize\ndog,-16,-1\n", "line 2: loudness_lufs -16 and normalize_db -1"),
    ("prompt,loop,trim\ndog,yes,-50\n", "line 2: --trim -50: a loop has no ends"),
    ("prompt,name\ndog,../up\n", "column name: expected the name of a file inside"),
    ("prompt,name\ndog,/etc/x\n", "column name: expected the name of a file inside"),
    ("prompt,name\ndog,~/x\n", "column name: '~/x' is no name that a file can have everywhere"),
    ("prompt,name\ndog,.\n", "column name: '.' is no name that a file can have everywhere"),
    ("Prompt,prompt\ndog,rain\n", "two columns have one name, but for capitals"),
    ("prompt,name\ndog,a:b\n", "column name: 'a:b' is no name that a file can have everywhere"),
    (f"prompt,name\ndog,{'x' * 300}\n", "column name: a name of over 200 bytes"),
    ("prompt,name\n,dog\n", "prompt is empty"),
    ("prompt,name\ndog\n", "a.csv:2: 1 cells, expected 2"),
    ("# nothing\n", "no prompt in it"),
]


@pytest.mark.parametrize(("table", "complaint"), BAD_CELLS)
def test_a_cell_that_cannot_be_used_is_told_by_line_and_column(
    table: str, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(table)
    with pytest.raises(ManifestError) as failure:
        read_list(tmp_path / "a.csv", making())
    assert complaint in str(failure.value)
    assert "a.csv" in str(failure.value)


BAD_LISTS = [
    ("prompt,name\ndog,a\nrain,A\n", [], "two sounds would go there (a.csv, line 2 and a.csv, li"),
    ("prompt,name\ndog,a\nrain,b\n", ["-o", "x-{take}.wav"], "add {seed}, {take} or {n}"),
    ("prompt\ndog\nrain\n", ["-o", "-"], "one sound goes to the standard output, not 2"),
    (
        "prompt,name\ndog,q.wav\nrain,q.ogg\n",
        ["-o", "{name}", "--spectrogram"],
        "q.png: would be the picture of two sounds; name them apart",
    ),
    ("prompt\ndog\n", ["-o", "-", "--spectrogram"], "--spectrogram: a picture lies beside"),
    ("prompt,duration\ndog,1\nrain,900\n", [], "a.csv, line 3, column duration: duration of"),
    ("prompt,loop,duration\ndog,yes,0.01\n", [], "a.csv, line 2, column duration: duration of"),
]


@pytest.mark.parametrize(("table", "arguments", "complaint"), BAD_LISTS)
def test_a_list_that_cannot_become_files_is_one_line_and_no_file(
    table: str,
    arguments: list[str],
    complaint: str,
    tiny_model: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "a.csv").write_text(table)
    before = sorted(here.iterdir())
    assert generate(tiny_model, "--list", "a.csv", *arguments) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert complaint in line
    assert said.out == ""
    assert sorted(here.iterdir()) == before


def test_every_column_is_named_as_its_option() -> None:
    assert {"duration", "steps", "guidance", "solver", "trim", "length", "fade"} <= set(COLUMNS)


def test_a_sound_made_of_a_piped_one_needs_no_file(
    tiny_model: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    assert generate(tiny_model, "dog", "-o", "-") == 0
    data = capsysbinary.readouterr().out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    vary = ["vary", "-", "-o", "a.wav", "--model", str(tiny_model), "--steps", "1"]
    assert run(vary) == 0
    assert read_audio(here / "a.wav").duration_s == 0.5


def test_a_kept_sound_of_other_adapters_is_told_and_gets_the_picture_that_it_lacks(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "one.csv").write_text("prompt\ndog\n")
    write_tiny_adapter(here / "rain.safetensors")
    assert generate(tiny_model, "--list", "one.csv", "--adapter", "rain.safetensors:0.5") == 0
    capsys.readouterr()
    for adapter, state in (("rain.safetensors:0.5", "kept"), ("rain.safetensors", "otherwise")):
        assert generate(tiny_model, "--list", "one.csv", "--spectrogram", "--adapter", adapter) == 0
        assert capsys.readouterr().out.split()[-1] == state
    assert (here / "dog_0.png").is_file()
    assert generate(tiny_model, "--list", "one.csv") == 0
    assert capsys.readouterr().out.split()[-1] == "otherwise"
