"""K3: prompts come in through one reader, with one set of rules, whatever command asks."""

import ast
from pathlib import Path
from typing import Any

import pytest
from reader_tables import _listen_prompts, _prompt_set, _prompts

from resonate_audio.core.errors import ManifestError

HOME = Path(__file__).parents[2] / "resonate_audio"
WANTED = ("a dog barks", "rain")
FORMS = {
    "p.txt": "a dog barks\nrain\n",
    "notes.txt": "# two sounds\n\na dog barks\n  rain  \n\n",
    "windows.txt": "\ufeffa dog barks\r\nrain\r\n",
    "P.TXT": "a dog barks\nrain",
    "prompts": "a dog barks\nrain\n",
    "p.csv": 'name,prompt\n1,a dog barks\n2,"rain"\n',
    "P.CSV": "\ufeffCaption\na dog barks\nrain\n",
    "p.tsv": "id\tprompt\n1\ta dog barks\n2\train\n",
    "p.jsonl": '{"prompt": "a dog barks"}\n{"caption": "rain"}\n',
    "P.JSONL": '\ufeff{"text": "a dog barks"}\n\n{"prompt": " rain "}\n',
    "p.json": '[{"id": "prompt_0001", "prompt_text": "a dog barks"}, {"prompt_text": "rain"}]',
    "texts.json": '["a dog barks", "rain"]',
    "tta.json": '[\n  {\n    "prompt_text": "a dog barks"\n  },\n  {"prompt_text": "rain"}\n]',
}
TWO_LINES = '{"prompt": "dog"}\n{"prompt": "cat"}\n'
REFUSED = {
    "p.txt": [TWO_LINES, '[\n  {"prompt": "dog"}\n]', "id,prompt\n1,dog\n"],
    "p.jsonl": ["dog\ncat\n", '[{"prompt": "dog"}]', "prompt\ndog\n", '{"prompt": 5}\n', "5\n"],
    "p.json": [TWO_LINES, "dog\n", "[5]", "[[]]", '{"prompt": "dog"}'],
    "p.csv": ["dog\ncat\n", "a,b\nc,d\n", '{"prompt": "dog"}\n', "prompt,prompt\na,b\n"],
    "p.yaml": ["- dog\n- cat\n"],
    "p.parquet": ["PAR1"],
    "none.txt": ["", " \n\n", "# only a note\n"],
    "none.csv": ["prompt\n"],
    "none.json": ["[]"],
}  # fmt: skip
"""What says one thing by its name and another by its first line, or holds no prompt."""


def in_a_set(path: Path) -> tuple[str, ...]:
    return tuple(item.prompt for item in _prompt_set(path).items)


READERS = {"every command": _prompts, "evaluation": in_a_set}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_prompts_to_every_reader(
    reader: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(FORMS[name].encode())
    assert READERS[reader](tmp_path / name) == WANTED


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_list_of_prompts_is_refused_by_name(
    reader: str, name: str, tmp_path: Path
) -> None:
    for content in REFUSED[name]:
        (tmp_path / name).write_text(content)
        with pytest.raises(ManifestError, match=name):
            READERS[reader](tmp_path / name)


def test_what_looks_like_another_format_is_told_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text('{"prompt": "dog"}\n{"prompt": "cat"}\n')
    with pytest.raises(ManifestError, match=r"looks like JSON lines; give it the suffix \.jsonl"):
        _prompts(tmp_path / "p.txt")


def test_a_listening_test_takes_its_texts_from_the_same_files(tmp_path: Path) -> None:
    for name, content in {
        "p.csv": "name,prompt\na,dog\n",
        "p.jsonl": '{"name": "a", "caption": "dog"}\n',
        "p.json": '[{"id": "a", "prompt_text": "dog"}]',
    }.items():
        (tmp_path / name).write_text(content)
        assert _listen_prompts(tmp_path / name) == {"a": "dog"}
    (tmp_path / "p.txt").write_text("dog\n")
    with pytest.raises(ManifestError, match="no name"):
        _listen_prompts(tmp_path / "p.txt")


def options() -> dict[str, list[str]]:
    """Names of every option of every command, by command and parameter."""
    import typer

    from resonate_audio.cli.main import app

    found: dict[str, list[str]] = {}

    def walk(command: Any, name: str) -> None:
        for part, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{name} {part}".strip())
        for parameter in command.params:
            found[f"{name} {parameter.name}"] = list(parameter.opts)

    walk(typer.main.get_command(app), "")
    return found


def test_the_option_has_one_name_everywhere() -> None:
    asking = {name: opts for name, opts in options().items() if "prompts" in name.split()[-1]}
    assert len(asking) >= 5
    for name, opts in asking.items():
        assert "--prompts" in opts or not opts[0].startswith("-"), (name, opts)


def test_no_command_reads_prompts_by_itself() -> None:
    """Whoever defines a reader of prompts hands on to the one."""
    readers = {
        path: node
        for path in HOME.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("read_prompt")
    }
    for path, node in readers.items():
        calls = {
            getattr(call.func, "id", "") for call in ast.walk(node) if isinstance(call, ast.Call)
        }
        assert path.name == "prompts.py" or "read_prompt_rows" in calls, path
