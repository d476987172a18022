"""`resonate mcp`, asked over stdin and stdout by the protocol's own client."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from resonate_audio.cli.main import run
from resonate_audio.cli.mcp.tools import Workshop
from resonate_audio.core.errors import InputError

HAS_MCP = importlib.util.find_spec("mcp") is not None
needs_mcp = pytest.mark.skipif(not HAS_MCP, reason='needs: pip install "resonate-audio[mcp]"')


class Assistant:
    """A client of a server in a process of its own, for code that does not wait for events."""

    def __init__(self, portal: Any, client: Any) -> None:
        self.portal, self.client = portal, client

    def tools(self) -> list[Any]:
        return self.portal.call(self.client.list_tools).tools

    def call(self, tool: str, **fields: Any) -> Any:
        return self.portal.call(self.client.call_tool, tool, fields)

    def refused(self, tool: str, **fields: Any) -> str:
        answer = self.call(tool, **fields)
        assert answer.is_error
        [said] = answer.content
        assert "\n" not in said.text
        return said.text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sounds").resolve()


@pytest.fixture(scope="module")
def assistant(tiny_model: Path, folder: Path) -> Iterator[Assistant]:
    from anyio.from_thread import start_blocking_portal
    from mcp import Client, StdioServerParameters, stdio_client

    command = ["-m", "resonate_audio", "mcp", "--folder", str(folder), "--model", str(tiny_model)]
    parameters = StdioServerParameters(
        command=sys.executable, args=[*command, "--judge", "nano-clap"], env=dict(os.environ)
    )
    with start_blocking_portal() as portal:
        connection = Client(stdio_client(parameters))
        with portal.wrap_async_context_manager(connection) as client:
            yield Assistant(portal, client)


def heard(content: Any) -> tuple[np.ndarray, int]:
    """The samples of audio content, and their rate."""
    assert (content.type, content.mime_type) == ("audio", "audio/wav")
    return soundfile.read(io.BytesIO(base64.b64decode(content.data)))


@needs_mcp
def test_the_tools_say_what_they_take(assistant: Assistant) -> None:
    tools = {tool.name: tool for tool in assistant.tools()}
    assert set(tools) == {"generate", "vary", "replace", "judge"}
    assert tools["generate"].input_schema["required"] == ["prompt"]
    for tool in tools.values():
        assert tool.description
        assert all(field["description"] for field in tool.input_schema["properties"].values())


@needs_mcp
def test_sounds_come_as_audio_and_as_files(assistant: Assistant, folder: Path) -> None:
    answer = assistant.call("generate", prompt="rain", duration_s=1.0, takes=2, seed=7)
    *sounds, text = answer.content
    files = json.loads(text.text)
    assert [Path(one["file"]) for one in files] == [folder / "rain_7.wav", folder / "rain_8.wav"]
    for content, one in zip(sounds, files, strict=True):
        samples, rate_hz = heard(content)
        assert len(samples) == round(one["duration_s"] * rate_hz) == rate_hz
        assert np.array_equal(samples, soundfile.read(one["file"])[0])


@needs_mcp
def test_a_name_that_is_taken_is_counted_up(assistant: Assistant) -> None:
    names = [
        Path(json.loads(answer.content[-1].text)[0]["file"]).name
        for answer in [
            assistant.call("generate", prompt="a bell", duration_s=1.0, seed=1) for _ in range(2)
        ]
    ]
    assert names == ["a-bell_1.wav", "a-bell_1-2.wav"]


@needs_mcp
def test_the_rest_of_a_mended_sound_stays(assistant: Assistant, folder: Path) -> None:
    rate_hz = 16_000
    source = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * rate_hz)
    soundfile.write(folder / "noise.wav", source, rate_hz, subtype="PCM_16")
    answer = assistant.call("replace", source="noise.wav", start_s=0.5, stop_s=1.5, prompt="rain")
    before, (after, _) = soundfile.read(folder / "noise.wav")[0], heard(answer.content[0])
    assert np.array_equal(before[: rate_hz // 2], after[: rate_hz // 2])
    assert np.array_equal(before[3 * rate_hz // 2 :], after[3 * rate_hz // 2 :])
    assert not np.array_equal(before, after)


@needs_mcp
def test_a_sound_is_varied_and_judged_by_what_made_it(assistant: Assistant) -> None:
    made = assistant.call("generate", prompt="a dog", duration_s=1.0, seed=3)
    name = Path(json.loads(made.content[-1].text)[0]["file"]).name
    varied = json.loads(assistant.call("vary", source=name, strength=0.4, seed=4).content[-1].text)
    assert Path(varied[0]["file"]).name == "a-dog-3-varied_4.wav"
    verdict = json.loads(assistant.call("judge", source=varied[0]["file"]).content[0].text)
    assert verdict["prompt"] == "a dog"
    assert -1 <= verdict["score"] <= 1


@needs_mcp
def test_how_far_it_is_is_told(assistant: Assistant) -> None:
    told: list[tuple[float, float | None]] = []

    async def listen(done: float, total: float | None, _: str | None) -> None:
        told.append((done, total))

    async def ask() -> None:
        fields = {"prompt": "rain", "duration_s": 1.0}
        await assistant.client.call_tool("generate", fields, progress_callback=listen)

    assistant.portal.call(ask)
    assert told
    assert told[-1][0] == told[-1][1]


@needs_mcp
def test_a_mistake_is_one_line(assistant: Assistant) -> None:
    assert "duration" in assistant.refused("generate", prompt="rain", duration_s=-1)
    assert "duration_s: Input should be" in assistant.refused(
        "generate", prompt="rain", duration_s="long"
    )
    assert "no field 'loudness'" in assistant.refused("generate", prompt="rain", loudness=3)
    assert "takes 9" in assistant.refused("generate", prompt="rain", takes=9)
    assert "no such sound" in assistant.refused("judge", source="nothing.wav")
    assert "no such sound in" in assistant.refused("vary", source="/etc/passwd")
    assert "no such sound in" in assistant.refused("vary", source="x" * 5000, strength=0.5)


def test_sources_are_found_in_the_folders_alone(tmp_path: Path) -> None:
    sounds, other = (tmp_path / "sounds", tmp_path / "other")
    for place in (sounds, other):
        place.mkdir()
    (other / "dog.wav").touch()
    (tmp_path / "secret.wav").touch()
    (sounds / "link.wav").symlink_to(tmp_path / "secret.wav")
    workshop = Workshop((sounds, other), "nano", "nano-clap", ".wav")
    assert workshop.find("dog.wav") == other / "dog.wav"
    for source in ("../secret.wav", str(tmp_path / "secret.wav"), "link.wav", "a\0b", "x" * 300):
        with pytest.raises(InputError, match="no such sound in"):
            workshop.find(source)


@pytest.mark.skipif(HAS_MCP, reason="the extra is installed")
def test_without_the_package_the_command_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["mcp", "--folder", str(tmp_path)]) == 2
    assert 'pip install "resonate-audio[mcp]"' in capsys.readouterr().err


@pytest.mark.slow
@needs_mcp
def test_the_protocols_own_inspector_lists_the_tools_and_makes_a_sound(
    tiny_model: Path, tmp_path: Path
) -> None:
    inspector = shutil.which("mcp-inspector")
    if inspector is None:
        pytest.skip("needs: npm install -g @modelcontextprotocol/inspector")
    server = [sys.executable, "-m", "resonate_audio", "mcp", "--folder", str(tmp_path)]
    command = [inspector, "--cli", *server, "--model", str(tiny_model)]

    def ask(*words: str) -> Any:
        done = subprocess.run([*command, *words], capture_output=True, timeout=120, check=False)
        return json.loads(done.stdout)

    listed = ask("--method", "tools/list")["tools"]
    assert [tool["name"] for tool in listed] == ["generate", "vary", "replace", "judge"]
    call = ["--method", "tools/call", "--tool-name"]
    made = ask(*call, "generate", "--tool-arg", "prompt=a dog", "--tool-arg", "seed=7")
    assert [content["type"] for content in made["content"]] == ["audio", "text"]
    assert (tmp_path / "a-dog_7.wav").is_file()
    wrong = ask(*call, "vary", "--tool-arg", "source=none.wav")
    assert wrong["isError"]
    assert "no such sound" in wrong["content"][0]["text"]
