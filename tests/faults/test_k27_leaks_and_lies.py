"""K27: what is told must be true, short enough to be read, and nobody's secret. Every door that
words leave by × signs that act; every route × damage; every file × who may read it."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import error_of
from served import (
    COMMAND,
    ROUTES,
    SERVERS,
    Route,
    Served,
    World,
    make_listening,
    make_run,
    make_sound,
    serving,
    tone,
    wav,
)

from resonate_audio.audio.io import write_audio
from resonate_audio.cli.console import print_as_json, print_table, print_text, say
from resonate_audio.cli.main import run as resonate
from resonate_audio.core.documents.csv_text import format_csv, parse_csv
from resonate_audio.core.files import atomic_path
from resonate_audio.core.text import LONGEST, one_line, visible
from resonate_audio.serving.errors import ApiError, as_api_error, error_response, without_folders
from resonate_audio.serving.listening.answers import ANSWERS
from resonate_audio.serving.sounds.store import FILE_NAME, Store

PACKAGE = Path(__file__).parents[2] / "resonate_audio"
ACTING = [chr(code) for code in (*range(9), 11, 12, *range(14, 32), *range(0x7F, 0xA0))]
ACTING += ["\u202e", "\u2066", "\u200f", "\u2028", "\ud800", "\udfff"]
HOSTILE = "a dog \x1b]0;owned\x07\x1b[31m\x9b2J\u202egod\u2028 \ud800"


# Words on a terminal, in a log, in an answer.


def test_no_sign_that_acts_is_visible_and_every_other_one_is() -> None:
    for sign in ACTING:
        assert visible(f"a{sign}b") == f"a{ascii(sign)[1:-1]}b", ascii(sign)
    for text in ("a dog\tbarks\ntwice", "犬が吠える", "ça va?", "👩‍🚀", "∞ + 2"):
        assert visible(text) == text


@given(st.text(alphabet=st.characters(), max_size=300), st.integers(20, 200))
def test_a_shown_text_is_no_longer_than_wanted_and_can_be_encoded(text: str, longest: int) -> None:
    shown = visible(text, longest)
    assert len(shown) <= longest
    assert not set(ACTING) & set(shown)
    shown.encode("utf-8")
    assert "\n" not in one_line(text, longest)


@pytest.mark.parametrize(
    "door",
    [say, print_text, lambda text: print_table(("a",), [(text,)]), print_as_json,
     lambda text: resonate(["generate", text, "--no-such-option"]),
     lambda text: resonate(["replay", f"{text}.wav"]), lambda text: resonate([text])],
    ids=["say", "text", "table", "json", "usage", "error", "command"],
)  # fmt: skip
def test_no_door_lets_a_sign_through_that_acts(
    door: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    door(HOSTILE)
    said = "".join(capfd.readouterr())
    assert said
    assert not set(ACTING) & set(said), said


def test_json_for_programs_still_says_what_it_was_given(capfd: pytest.CaptureFixture[str]) -> None:
    value = {"prompt": HOSTILE, "score": 0.5}
    print_as_json(value)
    assert json.loads(capfd.readouterr().out) == value


@pytest.mark.parametrize("arguments", [["generate", "x" * 200_000, "-o", "/proc/x"],
                                       ["replay", "x" * 200_000], ["x" * 200_000],
                                       ["models", "--" + "x" * 200_000],
                                       ["train", "grpo", "--set", "a" * 200_000]])  # fmt: skip
def test_no_message_is_longer_than_a_screen(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert resonate(arguments) == 2
    said = "".join(capfd.readouterr())
    assert len(said) < 2500
    assert len(said.splitlines()) == 1


def test_only_the_console_prints() -> None:
    for path in sorted((PACKAGE / "cli").rglob("*.py")):
        if path.name == "console.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_print = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            assert not is_print, f"{path}:{node.lineno}: say it through cli/console.py"


@pytest.mark.parametrize("text", [HOSTILE, "x" * 200_000])
def test_an_answer_says_nothing_that_acts_and_not_for_long(text: str) -> None:
    data = bytes(error_response(ApiError(422, f"field: {text}", text)).body).decode()
    told = json.loads(data)["error"]
    assert not set(ACTING) & (set(told["message"]) | set(told["param"]))
    assert len(told["message"]) <= LONGEST
    assert len(told["param"]) <= LONGEST


def test_a_path_in_an_address_does_not_act_in_the_log(world: World) -> None:
    server = world.servers["sounds"]
    server.raw(b"GET /%1b%5b31m%0aforged%20line HTTP/1.0\r\n\r\n", wait_s=5.0)
    line = next(line for line in server.said.splitlines() if "forged" in line)
    assert "\\x1b[31m" in line
    assert "GET" in line


# Paths of the server.


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, World]]:
    """A server whose files were damaged after it had started."""
    place = tmp_path_factory.mktemp("a-secret-place")
    world = World(place / "home", place / "runs")
    world.token = make_listening(world.home)
    make_run(world.runs / "one")
    command = [p.format(home=world.home, runs=world.runs) for p in SERVERS["sounds"]]
    with serving(place / "log", *command) as server, server.client() as client:
        world.servers["sounds"] = server
        world.job, world.sound = make_sound(client)
        world.find_run(client)
        client.get("/v1/listening/tests")
        for clip in (world.home / "listening" / "trees" / "clips").iterdir():
            clip.unlink()
        for path in world.home.glob("listening/trees/answers.sqlite*"):
            path.write_bytes(b"x" * 5000)
        (world.runs / "one" / "metrics.jsonl").unlink()
        (world.runs / "one" / "metrics.jsonl").mkdir()
        (world.home / "listening" / "other").mkdir()
        (world.home / "listening" / "other" / "test.yaml").write_bytes(b"{")
        (place / "home" / FILE_NAME).write_bytes(b"x" * 9000)
        yield server, world


@pytest.mark.parametrize(
    "route",
    [pytest.param(r, id=str(r)) for r in ROUTES if r.server == "sounds" and r.sends != "stream"],
)
def test_no_answer_tells_a_path_of_the_server(damaged: tuple[Served, World], route: Route) -> None:
    server, world = damaged
    with server.client(headers={"X-Rater-Token": world.token}) as client:
        for path in (route.at(world), route.at(world).replace("trees", "other")):
            answer = client.request(route.method, path, json=route.body)
            for secret in ("secret-place", str(Path.home()) + "/", tempfile.gettempdir() + "/"):
                assert secret not in answer.text, answer.text
            if answer.status_code >= 400:
                error_of(answer)


@pytest.mark.parametrize(
    ("text", "told"),
    [("/srv/ab/x.wav: missing", "x.wav: missing"), ("'/tmp/a/b.db' is full", "'b.db' is full"),
     ("C:\\Users\\me\\x.wav: bad", "x.wav: bad"), ("~/a/b: no", "b: no"),
     ("1/2 of a/b", "1/2 of a/b"), ("see https://x.org/y", "see https://x.org/y")],
)  # fmt: skip
def test_a_path_is_told_by_its_last_name(text: str, told: str) -> None:
    assert without_folders(text) == told


def test_errors_about_files_of_the_server_are_told_without_them() -> None:
    from resonate_audio.core import errors

    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.ResonateError):
            told = str(as_api_error(kind("/srv/secret/home/x.wav: is broken")))
            assert "/srv" not in told, kind


# Who may read.


def test_what_a_server_keeps_is_its_owners_alone(world: World) -> None:
    for path in [world.home, *world.home.rglob("*")]:
        if path.is_dir() and path != world.home:
            continue
        if "listening" in path.parts and path.name.partition("-")[0] != ANSWERS:
            continue
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_home_that_was_open_is_closed(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    Store(home).close()
    assert home.stat().st_mode & 0o777 == 0o700
    (home / FILE_NAME).chmod(0o644)
    home.chmod(mode)
    Store(home).close()
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_a_folder_of_other_things_keeps_its_rights_but_not_the_database(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    tmp_path.chmod(0o755)
    Store(tmp_path).close()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_names_on_the_way_to_a_file_cannot_be_guessed(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        with atomic_path(tmp_path / "x.json") as temporary:
            assert str(os.getpid()) not in temporary.name
            names.add(temporary.name)
            temporary.write_text("{}")
    assert len(names) == 3


# Tables.

FORMULAS = [
    "=1+1",
    "+1+x",
    "-x",
    "@SUM(A1)",
    "'=x",
    "''-y",
    " =x",
    "\t=x",
    '=HYPERLINK("x")',
    "=\n",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_and_each_is_read_as_it_was(text: str) -> None:
    written = format_csv([["system"], [text]])
    assert not re.search(r"^\"?\s*[=+\-@]", written.partition("\n")[2])
    [_, (_, cells)] = parse_csv(written.splitlines(keepends=True), Path("x.csv"))
    assert cells == [text]


@given(st.lists(st.text(alphabet="'=+-@ax1.\t ", min_size=1), min_size=1, max_size=3))
def test_any_cells_are_read_as_they_were(cells: list[str]) -> None:
    written = format_csv([cells]).splitlines(keepends=True)
    assert [found for _, found in parse_csv(written, Path("x.csv"))] == [cells]


@pytest.mark.parametrize("number", ["-5", "+3", "-0.5", "-1e-05", "-.5"])
def test_a_number_stays_a_number(number: str) -> None:
    assert format_csv([[number]]) == f"{number}\n"


def test_csv_is_written_by_one_door() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "csv_text.py":
            assert "csv.writer" not in path.read_text(encoding="utf-8"), path
            assert "DictWriter" not in path.read_text(encoding="utf-8"), path


# Nothing that is not there becomes a word.


@pytest.mark.parametrize("prompts", ['{"p0": null}', '{"p0": 3}', '{"p0": ["x"]}', "null", "[]"])
def test_a_text_that_is_none_is_refused_by_its_name(world: World, prompts: str) -> None:
    files = [(f"system:{name}", ("p0.wav", wav(), "audio/wav")) for name in "ab"]
    data = {"name": "nulls", "design": '{"preset": "ab"}', "prompts": prompts}
    with world.client("sounds") as client:
        answer = client.post("/v1/listening/tests", data=data, files=files)
        assert answer.status_code == 422, answer.text
        assert error_of(answer)["param"] in ("prompts", "prompts.p0")


NEEDS_NOTHING = ("/v1/library/{id}", "/v1/library/{id}/finish")
NEEDY = [r for r in ROUTES if r.body and r.server == "sounds" and r.path not in NEEDS_NOTHING]


@pytest.mark.parametrize("route", NEEDY, ids=str)
def test_null_for_a_text_that_is_needed_is_no_text(world: World, route: Route) -> None:
    needed = next(name for name in (route.body or {}))
    with world.client("sounds") as client:
        answer = client.post(route.at(world), json={**(route.body or {}), needed: None})
        assert answer.status_code == 422
        assert error_of(answer)["param"] == needed


# What libraries write.


def damaged_sounds(place: Path) -> list[Path]:
    """Sound files of every kind with bits turned, at which decoders write warnings."""
    found = []
    for suffix in (".mp3", ".flac", ".ogg", ".wav"):
        whole = place / f"whole{suffix}"
        write_audio(whole, tone())
        data = bytearray(whole.read_bytes())
        for step in range(len(data) // 3, len(data), 97):
            data[step] ^= 0xFF
        path = place / f"damaged{suffix}"
        path.write_bytes(bytes(data) + b"TAG" + bytes(range(125)))
        found.append(path)
    return found


def test_what_decoders_write_is_no_result(tmp_path: Path) -> None:
    damaged_sounds(tmp_path)
    files = [tmp_path / "damaged.mp3", tmp_path / "whole.mp3"]
    judged = ("-p", "rain", "-j", "level_judge:decibels", "--json")
    place = str(Path(__file__).parents[1] / "serving")
    done = subprocess.run(
        [*COMMAND, "reward", *map(str, files), *judged],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{place}"},
    )
    assert "Traceback" not in done.stderr, done.stderr
    if done.stdout:  # a file that cannot be read may end the command; then there is no result
        assert json.loads(done.stdout)


def test_what_a_c_library_writes_to_stdout_goes_to_stderr(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "from resonate_audio.cli.console import prepare_streams, print_text\n"
        "prepare_streams()\n"
        "os.write(1, b'a library\\n')\n"
        "print_text('a result')\n"
    )
    done = subprocess.run([COMMAND[0], "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("a result\n", "a library\n")
