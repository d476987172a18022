"""Gather what the documentation site is built from: the pages here, and a reference made from code.

    python docs/gather.py --output work/site

Every public name comes from its docstring, every command from its own help, every field of a recipe
from its model, every route from the description of the HTTP interface. Links that lead out of this
folder, to source files that the site does not show, become plain text.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
import typer
from pydantic import BaseModel

import resonate_audio
from resonate_audio.cli.main import app
from resonate_audio.training.recipes.codec import VAERecipe, VocoderRecipe
from resonate_audio.training.recipes.distil import DistilRecipe
from resonate_audio.training.recipes.pairs import PairRecipe
from resonate_audio.training.recipes.pretrain import PretrainRecipe
from resonate_audio.training.recipes.reinforce import ReinforceRecipe

DOCS = Path(__file__).parent
ROOT = DOCS.parent
RECIPES: dict[str, type[BaseModel]] = {
    "train vae": VAERecipe,
    "train vocoder": VocoderRecipe,
    "train pretrain": PretrainRecipe,
    "train distil": DistilRecipe,
    "train grpo, nft, awm, dpo, bon": ReinforceRecipe,
    "train dpo (from pairs)": PairRecipe,
}
OUTSIDE = re.compile(r"\[([^\]]*)\]\((\.\./[^)]*)\)")
RICH = re.compile(r"\[/?(?:bold|italic|dim)\]")
PAGES_OF_THE_ROOT = {"../CHANGELOG.md": "changelog.md", "../CONTRIBUTING.md": "contributing.md"}


def main() -> None:
    """Copy the pages and write the reference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    output = parser.parse_args().output
    shutil.rmtree(output, ignore_errors=True)
    pages = output / "docs"
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.yml"))
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        (pages / name.lower()).write_text(text, encoding="utf-8")
    (pages / "reference").mkdir()
    for name, lines in references().items():
        (pages / "reference" / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for page in pages.rglob("*.md"):
        page.write_text(without_outside(page.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copy(DOCS / "mkdocs.yml", output / "mkdocs.yml")


def references() -> dict[str, Iterator[str]]:
    """The pages of the reference by name, line by line."""
    return {
        "python": python_page(),
        "commands": commands_page(),
        "recipes": recipes_page(),
        "http": http_page(json.loads((DOCS / "openapi.json").read_text(encoding="utf-8"))),
    }


def without_outside(text: str) -> str:
    """A page whose links to files that the site does not show are plain text."""

    def plain(link: re.Match[str]) -> str:
        target = PAGES_OF_THE_ROOT.get(link[2])
        return f"[{link[1]}]({target})" if target else link[1]

    return OUTSIDE.sub(plain, text)


def python_page() -> Iterator[str]:
    """Every public name, filled in from its docstring."""
    yield "# Python\n"
    yield "What `import resonate_audio` offers. Everything else is reached by its module.\n"
    for name in sorted(resonate_audio.__all__):
        yield f"::: resonate_audio.{name}\n    options: {{heading_level: 2}}\n"


def commands_page() -> Iterator[str]:
    """Every command, from its own help."""
    yield "# Commands\n"
    for words, command in walk(typer.main.get_command(app)):
        yield f"## resonate {' '.join(words)}\n"
        for part in re.split(r"\n\s*\n", command.help or ""):
            yield cleaned(part) + "\n"
        yield "| option | meaning | default |\n|---|---|---|"
        for option in command.params:
            names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
            is_argument = option.param_type_name == "argument"
            names = f"`{(option.name or '').upper()}`" if is_argument else names
            meaning = cell(getattr(option, "help", ""))
            yield f"| {names} | {meaning} | {default_of(option.default)} |"
        yield ""


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command by the words that call it."""
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, inner in command.commands.items():
        yield from walk(inner, (*words, name))


def cleaned(text: str) -> str:
    """A paragraph of help: examples, which a control sign sets apart, as code."""
    lines = RICH.sub("", text.replace("\b", "")).strip("\n").splitlines()
    if any(line.strip().startswith("resonate ") for line in lines):
        code = [line for line in lines if line.strip()]
        return "```bash\n" + "\n".join(line.strip() for line in code) + "\n```"
    return " ".join(line.strip() for line in lines)


def default_of(value: Any) -> str:
    """A default as it would be typed."""
    is_plain = isinstance(value, (str, int, float, list, tuple)) and value not in ("", [], ())
    return f"`{value}`" if is_plain and not isinstance(value, bool) else ""


def cell(text: str | None) -> str:
    """Text that a table can hold."""
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")


def recipes_page() -> Iterator[str]:
    """Every field of every recipe, from its model."""
    yield "# Recipes\n"
    yield "A recipe is a YAML file; `--set a.b=c` changes a field of it. "
    yield "Fields of the same name mean the same everywhere.\n"
    package = griffe.load("resonate_audio", search_paths=[str(ROOT)])
    seen: set[type[BaseModel]] = set()
    for command, recipe in RECIPES.items():
        yield f"## {command}\n"
        yield from fields_of(recipe, package, seen)


def fields_of(model: type[BaseModel], package: Any, seen: set[type[BaseModel]]) -> Iterator[str]:
    """The fields of a model as a table, then those of the models in it that are new."""
    seen.add(model)
    yield "| field | type | default | meaning |\n|---|---|---|---|"
    for name, field in model.model_fields.items():
        default = (
            "required"
            if field.is_required()
            else short(field.get_default(call_default_factory=True))
        )
        kind = cell(re.sub(r"[\w.]+\.(\w+)", r"\1", str(field.annotation)).replace("<class '", ""))
        meaning = cell(described(model, name, package))
        yield f"| `{name}` | `{kind.strip(chr(39) + '>')}` | {default} | {meaning} |"
    yield ""
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            if inner not in seen:
                yield f"### {inner.__name__}\n\n{cell((inner.__doc__ or '').split(chr(10))[0])}\n"
                yield from fields_of(inner, package, seen)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from models_in(part)


def described(model: type[BaseModel], name: str, package: Any) -> str:
    """What the class that declares a field says under it."""
    for owner in model.__mro__:
        if name in inspect.get_annotations(owner):
            place = f"{owner.__module__}.{owner.__qualname__}.{name}"
            path = place.removeprefix("resonate_audio.")
            docstring = package[path].docstring
            return docstring.value if docstring else ""
    return ""


def short(value: Any) -> str:
    """A default that fits into a table."""
    if isinstance(value, BaseModel):
        return "its defaults"
    return f"`{json.dumps(value, default=str)}`"


def http_page(description: dict[str, Any]) -> Iterator[str]:
    """Every route, from the description that the server gives at /openapi.json."""
    yield "# HTTP\n"
    yield "The server gives the whole description, with schemas, at `/openapi.json`.\n"
    for path, methods in description["paths"].items():
        for method, route in methods.items():
            yield f"## {method.upper()} {path}\n"
            yield cell(route.get("description") or route.get("summary")) + "\n"
            yield from fields_of_route(route, description["components"]["schemas"])
            codes = ", ".join(f"`{code}`" for code in route["responses"])
            yield f"Answers: {codes}.\n"


def fields_of_route(route: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    """What a route takes, in its address and in its body."""
    rows = [(p["name"], p["in"], p.get("description")) for p in route.get("parameters", [])]
    for content in route.get("requestBody", {}).get("content", {}).values():
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        properties = schemas.get(name, {}).get("properties", {})
        rows += [(field, "body", value.get("description")) for field, value in properties.items()]
    if rows:
        yield "| field | where | meaning |\n|---|---|---|"
        for field, place, meaning in rows:
            yield f"| `{field}` | {place} | {cell(meaning)} |"
        yield ""


if __name__ == "__main__":
    main()
