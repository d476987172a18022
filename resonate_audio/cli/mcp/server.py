"""The tools as the Model Context Protocol has them: names, fields, sounds as audio content."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from anyio import from_thread
from mcp.server.mcpserver import Audio, Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from pydantic import Field, ValidationError

from resonate_audio.cli.mcp.tools import Saved, Workshop
from resonate_audio.core.config import describe_problems
from resonate_audio.core.errors import ResonateError
from resonate_audio.core.text import one_line

if TYPE_CHECKING:
    from resonate_audio.core.types import Audio as Sound
    from resonate_audio.pipeline.path import Resonate

INSTRUCTIONS = (
    "Sounds (not speech, not songs) from short descriptions, such as 'a dog barks twice, then rain "
    "starts'. Sounds come back as audio and as files; a source is the name of such a file."
)
ResultT = TypeVar("ResultT")

Prompt = Annotated[str, Field(description="What to hear, in a short sentence.")]
OwnPrompt = Annotated[
    str | None, Field(description="What to hear; by default what the source was made from.")
]
Source = Annotated[str, Field(description="Name of a sound file in the folder.")]
Seed = Annotated[
    int | None, Field(description="The same seed and settings give the same sound; random if null.")
]
Takes = Annotated[int, Field(description="How many sounds, each from its own seed.")]


class OneLineServer(MCPServer):  # type: ignore[misc]  # untyped where the extra is not installed
    """A server whose errors are one line, and that refuses fields it does not know."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Call a tool.

        Raises:
            ToolError: the caller's mistake, in one line.
        """
        tools = {tool.name: tool.input_schema for tool in await self.list_tools()}
        known = tools.get(name, {}).get("properties", {})
        unknown = [field for field in arguments if field not in known]
        if name in tools and unknown:
            raise ToolError(f"{name}: no field {unknown[0]!r}; there are {', '.join(known)}")
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:
            raise
        except ToolError as error:
            cause = error.__cause__
            is_field = isinstance(cause, ValidationError)
            raise ToolError(
                f"{name}: {describe_problems(cause)}" if is_field else str(error)
            ) from (cause)


def make_server(workshop: Workshop) -> Any:
    """A server with the tools generate, vary, replace and judge."""
    server = OneLineServer(
        "resonate",
        instructions=INSTRUCTIONS,
        version=version("resonate-audio"),
        log_level="WARNING",
    )

    def generate(
        context: Context,
        prompt: Prompt,
        duration_s: Annotated[
            float | None, Field(description="Seconds; by default the model's own length.")
        ] = None,
        takes: Takes = 1,
        seed: Seed = None,
        negative_prompt: Annotated[str, Field(description="What not to hear.")] = "",
    ) -> Any:
        """Make sounds from a description."""
        options: Any = {"seeds": seed, "on_step": teller(context)}
        return made(
            workshop,
            prompt,
            takes,
            lambda model: model.generate([prompt] * takes, negative_prompt, duration_s, **options),
        )

    def vary(
        context: Context,
        source: Source,
        strength: Annotated[
            float, Field(description="0 keeps the source, 1 is a free take; 0.5 is a relative.")
        ] = 0.5,
        prompt: OwnPrompt = None,
        takes: Takes = 1,
        seed: Seed = None,
    ) -> Any:
        """Make a sound like another one."""
        options: Any = {"takes": takes, "seeds": seed, "on_step": teller(context)}
        path = answered(lambda: workshop.find(source))
        return made(
            workshop,
            f"{path.stem} varied",
            takes,
            lambda model: model.vary(path, strength, prompt, **options),
        )

    def replace(
        context: Context,
        source: Source,
        start_s: Annotated[float, Field(description="Where the stretch begins, seconds.")],
        stop_s: Annotated[float, Field(description="Where it ends, seconds.")],
        prompt: OwnPrompt = None,
        takes: Takes = 1,
        seed: Seed = None,
    ) -> Any:
        """Make a stretch of a sound anew; outside it nothing changes."""
        options: Any = {"takes": takes, "seeds": seed, "on_step": teller(context)}
        path = answered(lambda: workshop.find(source))
        return made(
            workshop,
            f"{path.stem} mended",
            takes,
            lambda model: model.replace(path, [(start_s, stop_s)], prompt, **options),
        )

    def judge(
        source: Source,
        prompt: Annotated[
            str | None, Field(description="What it should be; by default what it was made from.")
        ] = None,
    ) -> Any:
        """Score how well a sound fits a description; more is better."""
        verdict = answered(lambda: workshop.judge(source, prompt))
        return json.dumps(
            {
                "file": str(verdict.clip.path),
                "prompt": verdict.clip.prompt,
                "score": verdict.total,
                "parts": verdict.parts,
                "judge": verdict.judge,
            },
            ensure_ascii=False,
        )

    for tool in (generate, vary, replace, judge):
        server.add_tool(tool, structured_output=False)
    return server


def teller(context: Any) -> Callable[[int, int], None]:
    """Tells the client how far the steps are, and ends the work when it has cancelled it."""

    def tell(done: int, total: int) -> None:
        from_thread.check_cancelled()
        from_thread.run(context.report_progress, done, total)

    return tell


def answered(work: Callable[[], ResultT]) -> ResultT:
    """The result of some work.

    Raises:
        ToolError: the caller's mistake, in one line.
    """
    try:
        return work()
    except ResonateError as error:
        raise ToolError(one_line(str(error))) from error


def made(
    workshop: Workshop, stem: str, takes: int, work: Callable[[Resonate], Sequence[Sound]]
) -> list[Any]:
    """Each sound as audio content, then the files and how they were made, as JSON.

    Raises:
        ToolError: the caller's mistake, in one line.
    """
    saved = answered(lambda: workshop.make(stem, takes, work))
    files = [describe(one) for one in saved]
    return [*(Audio(path=one.path) for one in saved), json.dumps(files, ensure_ascii=False)]


def describe(saved: Saved) -> dict[str, Any]:
    """A file and how it was made."""
    recipe = saved.audio.recipe
    return {
        "file": str(saved.path),
        "prompt": recipe.prompt if recipe else "",
        **({"note": "the prompt is longer than the model reads"} if saved.is_cut else {}),
        "seed": recipe.seed if recipe else None,
        "duration_s": round(saved.audio.duration_s, 3),
        "sample_rate_hz": saved.audio.sample_rate_hz,
    }
