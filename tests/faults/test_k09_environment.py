"""K9: what a server, a container or a Windows shell has for an environment. Every command × streams
that know few signs; every environment × a command of each kind; every variable that is read."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from served import COMMAND, tone

from resonate_audio.audio.io import write_audio
from resonate_audio.cli.main import app
from resonate_audio.cli.main import run as resonate
from resonate_audio.cli.text_command import TextCommand, is_text
from resonate_audio.core.errors import InputError, ResonateError
from resonate_audio.core.proxies import through_proxy

PACKAGE = Path(__file__).parents[2] / "resonate_audio"
LIMIT_S = 240
CODES = (0, 1, 2, 130)


def commands(group: Any = None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command by the words that call it."""
    group = group or typer.main.get_command(app)
    found: dict[tuple[str, ...], Any] = {}
    for name, command in group.commands.items():
        here = (*path, name)
        found |= commands(command, here) if hasattr(command, "commands") else {here: command}
    return found


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_help_of_every_command_can_be_shown_in_any_encoding(encoding: str) -> None:
    asked = [[], *([*name, "--help"] for name in commands()), ["eval", "--help"]]
    code = (
        "from resonate_audio.cli.console import prepare_streams\n"
        "from resonate_audio.cli.main import run\n"
        f"prepare_streams()\nfor words in {asked!r}: run(words)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        timeout=LIMIT_S,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert b"Traceback" not in done.stderr
    done.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_sound_whose_text_a_shell_cannot_show_is_made_and_told(
    tmp_path: Path, encoding: str
) -> None:
    text = "a żółw ☂ 犬"
    done = subprocess.run(
        [*COMMAND, "generate", text, "--steps", "1", "--duration", "0.5", "-o", "x.wav"],
        capture_output=True,
        check=False,
        timeout=LIMIT_S,
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "x.wav").is_file()
    assert b"\\u72ac" in done.stdout + done.stderr


@dataclass(frozen=True)
class Surroundings:
    """An environment, and how a command is called in it."""

    variables: Mapping[str, str | None] = field(default_factory=dict)
    """None takes one away."""
    shell: str = 'exec "$@"'
    has_no_user: bool = False


ENVIRONMENTS = {
    "no home and an unknown user": Surroundings({"HOME": None}, has_no_user=True),
    "a home that is a file": Surroundings({"HOME": "{place}/file"}),
    "a home that may not be written": Surroundings({"HOME": "/proc/sys"}),
    "a home that is not there": Surroundings({"HOME": "/nonexistent/home"}),
    "a socks proxy": Surroundings({"ALL_PROXY": "socks5://127.0.0.1:9"}),
    "a proxy that is none": Surroundings({"HTTP_PROXY": "http://[::1", "HTTPS_PROXY": "x y"}),
    "no temporary folder": Surroundings({"TMPDIR": "/nonexistent"}),
    "no stdout": Surroundings(shell='exec "$@" >&-'),
    "no stderr": Surroundings(shell='exec "$@" 2>&-'),
    "no stdin": Surroundings(shell='exec "$@" <&-'),
    "a full stdout": Surroundings(shell='exec "$@" >/dev/full'),
    "a stdout that nobody reads": Surroundings(shell='"$@" | true'),
    "a folder that is gone": Surroundings(
        shell='mkdir "$PLACE/gone"; cd "$PLACE/gone"; rmdir "$PLACE/gone"; exec "$@"'
    ),
    "a terminal without a size": Surroundings({"COLUMNS": "abc", "LINES": "-1", "TERM": "none"}),
    "no locale": Surroundings({"LC_ALL": "nonsense", "LANG": None, "PYTHONUTF8": "0"}),
    "a cache that is a file": Surroundings(
        {
            "HF_HOME": "{place}/file",
            "XDG_CACHE_HOME": "{place}/file",
            "MPLCONFIGDIR": "{place}/file",
        }
    ),
    "no address of a hub": Surroundings({"HF_ENDPOINT": "http://[::1"}),
    "threads that are no number": Surroundings({"OMP_NUM_THREADS": "many"}),
}
NO_USER = """
import os, pwd
def nobody(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = nobody
"""
ASKED = {
    "models": ["models"],
    "doctor": ["doctor", "--offline"],
    "serve": ["serve", "--port", "99999"],
    "hub": ["generate", "rain", "-m", "owner/name", "-o", "{place}/x.wav"],
}
"""A command of each kind: lists, computes, serves (with a port that it refuses), asks the hub."""
OF_THE_DOCTOR = ("no home and an unknown user", "no address of a hub", "a cache that is a file")
"""What it looks at beside what the others do."""


def call(place: Path, around: Surroundings, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Call a command in its surroundings."""
    (place / "file").write_text("x")
    known = os.environ | {"PLACE": str(place), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for name, value in around.variables.items():
        known.pop(name, None)
        if value is not None:
            known[name] = value.format(place=place)
    if around.has_no_user:
        (place / "site").mkdir()
        (place / "site" / "sitecustomize.py").write_text(NO_USER)
        known["PYTHONPATH"] = f"{place / 'site'}:{known.get('PYTHONPATH', '')}"
    filled = [word.format(place=place) for word in words]
    return subprocess.run(
        ["sh", "-c", around.shell, "sh", *COMMAND, *filled],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
        env=known,
        cwd=place,
    )


QUICK = ("no home and an unknown user", "no address of a hub")
"""Environments that differ most; the others are tried among the slow tests."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in sorted(ENVIRONMENTS)
    ],
)
def test_no_environment_makes_a_traceback(tmp_path: Path, name: str) -> None:
    for kind, words in ASKED.items():
        if kind == "doctor" and name not in OF_THE_DOCTOR:
            continue  # it takes longest
        place = tmp_path / kind
        place.mkdir()
        done = call(place, ENVIRONMENTS[name], words)
        said = done.stdout + done.stderr
        assert done.returncode in CODES, (kind, done.returncode, said[-2000:])
        assert "Traceback" not in said, (kind, said[-3000:])
        assert len(done.stderr.splitlines()) < 8, (kind, said[-2000:])


def test_who_has_no_home_is_told_to_name_a_folder(tmp_path: Path) -> None:
    around = ENVIRONMENTS["no home and an unknown user"]
    done = call(tmp_path, around, ["serve", "--port", "0"])
    assert done.returncode == 2
    assert "give a full path" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    done = call(tmp_path, ENVIRONMENTS["a full stdout"], ["models"])
    assert done.returncode == 2
    assert "the disk is full where the output goes" in done.stderr


# Proxies.


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variable", "proxy", "words"),
    [("HTTP_PROXY", "http://127.0.0.1:9", "proxy http://127.0.0.1:9 by HTTP_PROXY"),
     ("http_proxy", "http://me:secret@127.0.0.1:9", "proxy 127.0.0.1:9 by http_proxy"),
     ("ALL_PROXY", "socks5://127.0.0.1:9", "proxy socks5://127.0.0.1:9 by ALL_PROXY")],
)  # fmt: skip
def test_a_judge_behind_a_dead_proxy_is_not_blamed(
    tmp_path: Path,
    no_proxies: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    proxy: str,
    words: str,
) -> None:
    no_proxies.setenv(variable, proxy)
    write_audio(tmp_path / "x.wav", tone())
    judge = "remote:http://10.9.8.7/v1#model=x&retries=0"
    assert resonate(["reward", str(tmp_path / "x.wav"), "-p", "rain", "-j", judge]) in (1, 2)
    said = capsys.readouterr().err
    assert words in said, said
    assert "secret" not in said


def test_without_a_proxy_nothing_is_said_of_one(no_proxies: pytest.MonkeyPatch) -> None:
    assert through_proxy("http://10.9.8.7/v1") == ""
    no_proxies.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    no_proxies.setenv("NO_PROXY", "10.9.8.7")
    assert through_proxy("http://10.9.8.7/v1") == ""
    assert through_proxy("http://[::1") == ""


# Ctrl-C.


@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.0])
def test_ctrl_c_ends_in_one_line_however_early(tmp_path: Path, after_s: float) -> None:
    start = (
        "import signal, sys, resonate_audio.__main__ as command\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a shell's foreground\n"
        "sys.argv = ['resonate', 'generate', 'rain', '-o', 'x.wav', '--steps', '25', '-n', '60']\n"
        "before = command.signal.signal\n"
        "def signal(*given):\n"
        "    kept = before(*given)\n"
        "    print('ready', flush=True)\n"
        "    return kept\n"
        "command.signal.signal = signal\n"
        "command.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", start],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"  # Ctrl-C is ours from here on
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, said
    assert "Traceback" not in said, said
    assert [line for line in said.splitlines() if "interrupted" in line] != [], said


def test_an_interrupt_that_a_library_drops_comes_again() -> None:
    drops = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a shell's foreground\n"
        "import resonate_audio.cli.main as command\n"
        "def run(arguments):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(1)\n"
        "    except BaseException:\n"
        "        pass\n"
        "    for _ in range(200): time.sleep(0.1)\n"
        "    return 0\n"
        "command.run = run\n"
        "command.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", drops], capture_output=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 130
    assert done.stderr.decode().splitlines() == [
        "resonate: interrupted; files that were finished are kept"
    ]


# Texts that begin with a hyphen.


@pytest.mark.parametrize(
    ("argument", "expected"),
    [("-5 dB hiss", True), ("--- a pause", True), ("-x y=z", True), ("- rain", True),
     ("-5", False), ("--steps", False), ("--output=a b.wav", False), ("rain -x", False),
     ("-", False)],
)  # fmt: skip
def test_a_text_is_told_from_an_option_by_its_blanks(argument: str, expected: bool) -> None:
    assert is_text(argument) is expected


PLACES = {
    ("data", "import"), ("data", "shards"), ("keys", "add"), ("keys", "remove"),
    ("models", "fetch"), ("models", "remove"),
}  # fmt: skip
"""Their arguments are places and names of ours, not words of people."""


def takes_texts(command: Any) -> bool:
    """Whether an argument of a command is a text, or several."""
    for parameter in inspect.signature(command.callback, eval_str=True).parameters.values():
        kind, *more = get_args(parameter.annotation) or (parameter.annotation,)
        is_argument = any(isinstance(one, typer.models.ArgumentInfo) for one in more)
        if is_argument and "str" in re.findall(r"\w+", str(kind).replace("<class ", "")):
            return True
    return False


def test_every_command_that_takes_texts_takes_those_with_a_hyphen() -> None:
    found = commands().items()
    texts = {name for name, command in found if takes_texts(command)}
    assert texts - PLACES == {name for name, command in found if isinstance(command, TextCommand)}


def test_a_prompt_may_begin_with_a_hyphen(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--steps", "1", "--duration", "0.3", "--negative", "-3 dB hum", "-o", "out/"]
    words += ["--model", str(tiny_model)]
    assert resonate(["generate", "-5 dB hiss", *words, "rain"]) == 0, capsys.readouterr().err
    assert {path.name.rpartition("_")[0] for path in Path("out").iterdir()} == {"5-db-hiss", "rain"}


def test_an_option_that_is_none_is_told_how_to_be_a_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert resonate(["generate", "-hiss"]) == 2
    assert "put -- before a text that begins with a hyphen" in capsys.readouterr().err
    assert resonate(["generate", "rain", "--steps", "-5 dB"]) == 2
    assert "\ue000" not in capsys.readouterr().err


# Variables that are read.

VARIABLES = {
    "TERM": ("dumb", ""),
    "WORLD_SIZE": ("abc", "-1", "1.5", "9" * 400, ""),
    "LOCAL_RANK": ("abc",),
    "RANK": ("abc", "1"),
    "TORCHELASTIC_RESTART_COUNT": ("abc",),
    "RESONATE_API_KEY": ("short", "with blank inside", "abcdefghij\n", "\udcff" * 9),
    "RAY_TMPDIR": ("/tmp/" + "x" * 90,),
    "TMPDIR": ("/tmp/" + "x" * 90,),
    "GOMP_SPINCOUNT": (),
    "RAY_BACKEND_LOG_LEVEL": (),
    "RAY_DATA_LOG_LEVEL": (),
    # Of trackers, which go by whatever they hold; one that fails is told, and the training goes on.
    "MLFLOW_EXPERIMENT_NAME": (),
    "MLFLOW_TRACKING_URI": (),
    "TRACKIO_PROJECT": (),
    "WANDB_PROJECT": (),
    "XDG_CACHE_HOME": ("/proc/sys", "relative", "a\udcffb"),
}
"""Every variable that the package reads by its name, and values that are wrong."""


def test_every_variable_that_is_read_is_in_the_table() -> None:
    pattern = re.compile(
        r"(?:environ(?:ment)?(?:\.get|\.setdefault)?[\[(]|getenv\(|number_of\()\"([A-Z_]+)\""
    )
    found = set()
    for path in PACKAGE.rglob("*.py"):
        found |= set(pattern.findall(path.read_text(encoding="utf-8")))
    found.add("RESONATE_API_KEY")  # by a constant, which the message needs
    assert found == set(VARIABLES)


@pytest.mark.parametrize("value", VARIABLES["RANK"])
def test_a_rank_without_other_processes_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    """Some clusters set it for a single process, too."""
    from resonate_audio.cli import train
    from resonate_audio.training.loop.run_config import RunConfig, TrainerConfig
    from resonate_audio.training.loop.trainer import RunResult

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", value)
    told: list[str] = []
    monkeypatch.setattr(train, "_say", told.append)
    config = TrainerConfig(run=RunConfig(output=tmp_path, num_steps=1))
    train._tell_made(config, RunResult(1, finished=True))
    assert told == [f"made:  {tmp_path / 'export'}"]


@pytest.mark.parametrize("value", VARIABLES["WORLD_SIZE"])
def test_a_number_of_torchrun_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    from resonate_audio.training.loop.distributed import ALONE, joined_ranks

    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", value)
    if not value:
        with joined_ranks() as ranks:
            assert ranks == ALONE
        return
    with pytest.raises(ResonateError, match="WORLD_SIZE") as caught, joined_ranks():
        pass
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", VARIABLES["RESONATE_API_KEY"])
def test_a_key_that_is_none_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, value: str
) -> None:
    monkeypatch.setenv("RESONATE_API_KEY", value)
    assert resonate(["serve", "--home", str(tmp_path / "home"), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "api_key" in said
    assert value not in said


@pytest.mark.parametrize("value", VARIABLES["XDG_CACHE_HOME"])
def test_a_cache_that_cannot_be_written_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    from resonate_audio.core.processor import known_rates, rates_path

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    path = rates_path()
    assert path is not None
    assert known_rates(path).float32_gflops > 0


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_folder_too_long_for_sockets_is_passed_by(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    pytest.importorskip("ray", reason='needs pip install "resonate-audio[data]"')
    from resonate_audio.data import ray_map

    [value] = VARIABLES[variable]
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    assert not ray_map.has_long_temporary_folder()
    monkeypatch.setenv(variable, value)
    assert ray_map.has_long_temporary_folder()


def test_a_home_of_a_user_without_one_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from resonate_audio.core.paths import given_path

    def nobody(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nobody)
    with pytest.raises(InputError, match="this user has no home folder"):
        given_path(Path("~/x"))
