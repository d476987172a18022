"""K18: no parser's own error reaches the user, and no document takes all memory or time."""

import time
from pathlib import Path

import pytest
from reader_tables import (
    CSV_READERS,
    JSON_READERS,
    TEXT_READERS,
    YAML_READERS,
    Member,
    try_reading,
)

PATIENCE_S = 10.0
DEEP = b"[" * 100_000
ROW = b'{"prompt": %s, "id": %s, "score": %s, "step": %s, "name": %s, "audio_id": %s}'


def row(value: bytes) -> bytes:
    """A value where any field could be."""
    return ROW.replace(b"%s", value)


# Nothing that reads JSON can make sense of these.
BROKEN_JSON = {
    "a thousand lists": b"[" * 1_000 + b"]" * 1_000,
    "a list without end": DEEP,
    "objects a thousand deep": b'{"a":' * 1_000 + b"1" + b"}" * 1_000,
    "a field that is too deep": row(b"[" * 70 + b"]" * 70),
    "no JSON": b"{broken",
    "cut off": b'{"prompt": "a do',
    "no UTF-8": b'{"prompt": "\xff\xfe"}',
    "UTF-16": '{"prompt": "dog"}'.encode("utf-16"),
    "a number of 5,000 digits": row(b"9" * 5_000),
    "half a character": row(b'"\\ud800"'),
    "half a character in a name": b'{"\\udfff": 1}',
    "a NUL": row(b'"a\\u0000b"'),
    "a raw NUL": b'{"prompt": "a\x00b"}',
}
"""Numbers that JSON does not have; files of our own may hold NaN, where a training went wrong."""
NO_NUMBERS = {
    "1e999": row(b"1e999"),
    "not a number": row(b"NaN"),
    "infinite": row(b"-Infinity"),
    "beyond 64 bits": row(b"9" * 30),
}
ODD_JSON = {
    "nothing": b"",
    "white space": b" \n\n ",
    "null": b"null",
    "a list": b"[]",
    "a list of a list": b"[[]]",
    "an object": b"{}",
    "a number": b"5",
    "a text": b'"dog"',
    "true": b"true",
    "a mark of byte order alone": b"\xef\xbb\xbf",
    **{f"fields that are {value.decode()[:20]}": row(value) for value in (
        b"5", b"-1", b"null", b"true", b"[]", b"{}", b'""', b'"dog"', b'["a", 5]', b"1.5",
        b'"../../a"', b'"\\u2028"', b'"' + b"x" * 100_000 + b'"',
    )},
}  # fmt: skip
OWN_NUMBERS = {"metrics of a training", "metrics of a run", "takes of a run"}


@pytest.mark.parametrize("member", JSON_READERS, ids=str)
def test_broken_json_is_refused_in_one_line_that_names_the_file(
    member: Member, tmp_path: Path
) -> None:
    inputs = BROKEN_JSON | ({} if member.name in OWN_NUMBERS else NO_NUMBERS)
    for name, content in inputs.items():
        path = tmp_path / member.file
        path.write_bytes(content + b"\n" * member.ends_lines)
        started = time.process_time()
        message = try_reading(member, path)
        assert time.process_time() - started < PATIENCE_S, name
        assert member.forgives or message is not None, f"{name} was read"
        assert message is None or str(path) in message or path.name in message, (name, message)


@pytest.mark.parametrize("member", JSON_READERS, ids=str)
def test_json_of_another_form_is_read_or_refused_by_name(member: Member, tmp_path: Path) -> None:
    for content in ODD_JSON.values():
        path = tmp_path / member.file
        path.write_bytes(content)
        try_reading(member, path)


def test_numbers_that_json_does_not_have_do_not_hide_a_run(tmp_path: Path) -> None:
    from resonate_audio.training.loop.progress import append_metrics, read_metrics

    append_metrics(tmp_path / "metrics.jsonl", {"step": 1, "loss": float("nan")})
    [line] = read_metrics(tmp_path / "metrics.jsonl")
    assert line["loss"] != line["loss"]


NINEFOLD = b"a0: &a0 [x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)
)
BROKEN_YAML = {
    "a loop": b"&a {b: *a}",
    "a loop of lists": b"&a [*a]",
    "ninefold anchors": NINEFOLD,
    "lists a thousand deep": b"[" * 1_000,
    "blocks a thousand deep": b"- " * 1_000,
    "keys a thousand deep": b"? " * 1_000,
    "a timestamp by its tag": b"!!timestamp x",
    "an object of Python": b"!!python/object/apply:os.getcwd []",
    "a number by its tag": b"!!int 0o_",
    "a real number by its tag": b"!!float abc",
    "5,000 digits": b"9" * 5_000,
    "1e999": b"1e999",
    "infinite": b".inf",
    "not a number": b".nan",
    "a field twice": b"a: 1\na: 2\n",
    "an unknown alias": b"*x",
    "another version": b"%YAML 9.9\n---\na: 1\n",
    "two documents": b"a: 1\n---\nb: 2\n",
    "a list as a name": b"? [a]\n: 1\n",
    "nothing as a name": b"a: 1\nnull: 2\n",
    "a tab": b"a:\n\t- b\n",
    "half a quote": b"a: 'b",
    "a NUL": b"a: b\x00",
    "a megabyte": b"a: " + b"x" * 1_000_000,
}
ODD_YAML = {
    "a broken date": b"2001-13-45",
    "a date": b"2001-01-01",
    "half a number": b"0b_",
    "one to one": b"1:30",
    "nothing": b"",
    "null": b"~",
    "a list": b"[1, 2]",
    "text": b"dog",
    "no UTF-8": b"a: \xff",
    "U+2028": "a: 'b\u2028c'".encode(),
    "a merge of nothing": b"<<: 1",
    "numbers as names": b"1: 2\nnull: 3\n",
}


@pytest.mark.parametrize("member", YAML_READERS, ids=str)
def test_broken_yaml_is_refused_in_one_line_that_names_the_file(
    member: Member, tmp_path: Path
) -> None:
    for name, content in BROKEN_YAML.items():
        path = tmp_path / member.file
        path.write_bytes(content + b"\n" * member.ends_lines)
        started = time.process_time()
        message = try_reading(member, path)
        assert time.process_time() - started < PATIENCE_S, name
        assert member.forgives or message is not None, f"{name} was read"
        assert message is None or path.name in message or "--set" in message, (name, message)


@pytest.mark.parametrize("member", YAML_READERS, ids=str)
def test_yaml_of_another_form_is_read_or_refused_by_name(member: Member, tmp_path: Path) -> None:
    for content in ODD_YAML.values():
        (tmp_path / member.file).write_bytes(content)
        try_reading(member, tmp_path / member.file)


def test_a_document_of_too_many_values_is_refused() -> None:
    from resonate_audio.core.documents.yaml_text import MAX_NODES, parse_yaml
    from resonate_audio.core.errors import ConfigError

    with pytest.raises(ConfigError, match="over 50,000 values"):
        parse_yaml("[" + "a," * (MAX_NODES + 1) + "]", "here")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e0", 1.0), ("1e-4", 1e-4), ("010", 10), ("0o17", 15), ("0x1f", 31), ("5.", 5.0)),
        *(("true", True), ("no", "no"), ("1:30", "1:30"), ("2001-13-45", "2001-13-45")),
        *(("~", None), ("-5", -5), ("1_000", "1_000"), ("'010'", "010"), ("+.5", 0.5)),
    ],
)
def test_yaml_numbers_are_those_of_version_1_2(text: str, value: object) -> None:
    from resonate_audio.core.documents.yaml_text import parse_yaml

    found = parse_yaml(text, "here")
    assert found == value
    assert type(found) is type(value)


BROKEN_CSV = {
    "a quote without end": b'prompt,name\n"dog,a\ncat,b\n',
    "too few cells": b"prompt,name\ndog\n",
    "too many cells": b"prompt,name\ndog,a,b\n",
    "a NUL": b"prompt,name\nd\x00g,a\n",
    "no UTF-8": b"prompt,name\n\xff,a\n",
    "UTF-16": "prompt,name\ndog,a\n".encode("utf-16"),
    "a cell of a megabyte": b"prompt,name\n" + b"x" * 1_000_000 + b",a\n",
    "a column twice": b"prompt,prompt\ndog,cat\n",
}
ODD_CSV = {
    "nothing": b"",
    "a header alone": b"prompt,name\n",
    "only line ends": b"\r\n\r\n",
    "carriage returns alone": b"prompt,name\rdog,a\r",
    "numbers beyond any": b"rater,clip,system,prompt,axis,score\na,b,c,d,e,1e999\n",
    "no number": b"rater,clip,system,prompt,axis,score\na,b,c,d,e,x\n",
    "U+2028 in a cell": "prompt,name\ndog\u2028cat,a\n".encode(),
    "JSON": b'{"prompt": "dog"}\n',
}


@pytest.mark.parametrize("member", CSV_READERS, ids=str)
def test_broken_csv_is_refused_in_one_line_that_names_the_file(
    member: Member, tmp_path: Path
) -> None:
    for name, content in BROKEN_CSV.items():
        path = tmp_path / member.file
        separator = b"\t" if path.suffix == ".tsv" else b","
        path.write_bytes(content if "UTF-16" in name else content.replace(b",", separator))
        message = try_reading(member, path)
        assert member.forgives or message is not None, f"{name} was read"
        assert message is None or path.name in message, (name, message)


@pytest.mark.parametrize("member", CSV_READERS + TEXT_READERS, ids=str)
def test_tables_and_texts_of_another_form_are_read_or_refused(
    member: Member, tmp_path: Path
) -> None:
    for content in (ODD_CSV | ODD_JSON | BROKEN_CSV | BROKEN_JSON).values():
        (tmp_path / member.file).write_bytes(content)
        try_reading(member, tmp_path / member.file)


def test_a_command_says_it_in_one_line_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from resonate_audio.cli.main import run

    recipe = tmp_path / "r.yaml"
    recipe.write_bytes(NINEFOLD)
    lines = tmp_path / "p.jsonl"
    lines.write_bytes(DEEP)
    commands = [
        ["train", "pretrain", str(recipe)],
        ["train", "grpo", str(recipe)],
        ["train", "plan", str(recipe)],
        ["generate", "--prompts", str(lines)],
        ["eval", "generate", str(lines), "-o", str(tmp_path / "out")],
        ["eval", "compare", str(tmp_path), str(tmp_path)],
        ["data", "check", str(lines)],
        ["data", "mix", str(lines), "-o", str(tmp_path / "mix.jsonl")],
        ["serve", "--set", "devices=&a {b: *a}"],
    ]
    for command in commands:
        assert run(command) == 2, command
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1, said
        assert said[0].startswith("resonate: "), said
