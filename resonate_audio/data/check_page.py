"""The check of a manifest as one page that needs nothing from elsewhere."""

from __future__ import annotations

import html
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from resonate_audio.core.documents.json_text import read_object
from resonate_audio.core.errors import ManifestError, OutputError
from resonate_audio.core.files import atomic_path
from resonate_audio.core.page import render_page, render_table
from resonate_audio.data.check import KINDS, CheckReport

EDGES_S = (0, 0.5, 1, 2, 3, 5, 8, 10.5, 15, 20, 30, 60, 120, 600)
"""Borders of the histogram; clips of exactly ten seconds are many and stay together."""
SHOWN = 100
STYLE = """
main { padding-bottom: 3rem; }
main > section { margin-top: 2.25rem; }
main h2 { font-size: 1.25rem; letter-spacing: -.02em; margin: 0 0 .8rem; }
.facts { display: flex; flex-wrap: wrap; gap: .8rem 2.5rem; margin: 0; }
.facts div { display: flex; flex-direction: column-reverse; }
.facts dt { color: var(--soft); font-size: .88rem; }
.facts dd { margin: 0; font-size: 1.7rem; font-weight: 650; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.bars { list-style: none; margin: 0; padding: 0; display: grid; gap: .3rem; font-size: .88rem;
  font-variant-numeric: tabular-nums; }
.bars li { display: grid; grid-template-columns: 6.5rem 1fr 5rem; gap: .7rem; align-items: center; }
.bars li > :first-child, .bars li > :last-child { text-align: right; color: var(--soft); }
.bars i { display: block; height: 1.1rem; min-width: 1px; border-radius: .2rem;
  background: var(--accent); }
.kind span { color: var(--soft); font-weight: 400; font-size: .88rem; margin-left: .5rem; }
.found { margin: 0; padding: 0; list-style: none; font-size: .88rem; overflow-wrap: anywhere; }
.found li { padding: .3rem 0; border-top: 1px solid var(--line); }
.found b { font-weight: 560; margin-right: .6rem; }
.found span { color: var(--soft); }
.columns { display: grid; gap: 1.5rem 3rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
tbody th, section:last-child td { white-space: normal; overflow-wrap: anywhere; }
"""


def check_place(path: Path) -> None:
    """Refuse to write over what is no page of an earlier check.

    Raises:
        OutputError: names what is there.
    """
    beside = path.with_suffix(".json")
    there = next((one for one in (path, beside) if one.exists()), None)
    try:
        is_ours = there is None or {"manifest", "findings"} <= set(read_object(beside))
    except ManifestError:
        is_ours = False
    if not is_ours:
        raise OutputError(f"{there}: exists already and is of no check; choose another name")


def write_check(path: Path, report: CheckReport) -> None:
    """Write the page, and the same as JSON beside it.

    Raises:
        OutputError: a file cannot be written.
    """
    with atomic_path(path.with_suffix(".json")) as temporary:
        text = json.dumps(report.as_json(), indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    with atomic_path(path) as temporary:
        temporary.write_text(render_check(report), encoding="utf-8")


def render_check(report: CheckReport) -> str:
    """The page's HTML."""
    counts = report.counts()
    kinds = f"{len(counts)} kind{'s' if len(counts) > 1 else ''} of problems"
    told = kinds if counts else "no problem"
    return render_page(
        f"check of {Path(report.manifest).name}",
        Path(report.manifest).name,
        f"Every clip was decoded and compared with the others: {told} found.",
        f"<main>{_facts(report)}{_problems(report, counts)}{_durations(report)}"
        f"{_columns(report)}{_settings(report.config)}</main>",
        STYLE,
    )


def _facts(report: CheckReport) -> str:
    named = len({x.audio_id for x in report.findings if x.audio_id})
    facts = {
        "clips": f"{report.num_clips:,}",
        "hours": f"{report.seconds / 3600:,.2f}",
        "clips with a problem": f"{named:,}",
    }
    if report.num_repeats:
        facts["repeats, not decoded again"] = f"{report.num_repeats:,}"
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{items}</dl>'


def _problems(report: CheckReport, counts: dict[str, int]) -> str:
    if not counts:
        return "<section><h2>Problems</h2><p>None.</p></section>"
    parts = "".join(_kind(report, kind, count) for kind, count in counts.items())
    return f"<section><h2>Problems</h2>{parts}</section>"


def _kind(report: CheckReport, kind: str, count: int) -> str:
    found = report.of_kind(kind)
    items = "".join(
        f"<li>{f'<b>{html.escape(x.audio_id)}</b>' if x.audio_id else ''}"
        f"<span>{html.escape(x.detail)}</span></li>"
        for x in found[:SHOWN]
    )
    rest = len(found) - SHOWN
    more = f"<p>… and {rest:,} more, all in the JSON beside this page.</p>" if rest > 0 else ""
    return (
        f'<details><summary><span class="kind">{kind}: {count:,} '
        f"<span>{html.escape(KINDS[kind])}</span></span></summary>"
        f'<ul class="found">{items}</ul>{more}</details>'
    )


def histogram(durations_s: list[float]) -> list[tuple[str, int]]:
    """Clips between each pair of borders, from the first that is not empty to the last."""
    bins = [0] * len(EDGES_S)
    for duration in durations_s:
        bins[sum(duration >= edge for edge in EDGES_S[1:])] += 1
    labels = [f"{low:g}\N{EN DASH}{high:g} s" for low, high in pairwise(EDGES_S)]
    rows = list(zip([*labels, f"{EDGES_S[-1]:g} s and more"], bins, strict=True))
    filled = [index for index, count in enumerate(bins) if count]
    return rows[filled[0] : filled[-1] + 1] if filled else []


def _durations(report: CheckReport) -> str:
    rows = histogram(report.durations_s)
    most = max((count for _, count in rows), default=1)
    bars = "".join(
        f'<li><span>{label}</span><i style="width:{100 * count / most:.2f}%"></i>'
        f"<span>{count:,}</span></li>"
        for label, count in rows
    )
    body = f'<ul class="bars">{bars}</ul>' if rows else "<p>No clip could be decoded.</p>"
    return f"<section><h2>Durations</h2>{body}</section>"


def _columns(report: CheckReport) -> str:
    rates = Counter({f"{rate:,} Hz": count for rate, count in report.rates_hz.items()})
    tables = {
        "Split": report.splits,
        "Source": report.sources,
        "Licence": report.licences,
        "Sample rate": rates,
    }
    return (
        '<section><h2>What they are</h2><div class="columns">'
        + "".join(_count_table(name, counter) for name, counter in tables.items() if counter)
        + "</div></section>"
    )


def _count_table(name: str, counts: Counter[str]) -> str:
    rows = [[value, f"{count:,}"] for value, count in counts.most_common(SHOWN)]
    return render_table([name, "clips"], rows, f"Clips by {name.lower()}")


def _settings(config: dict[str, Any]) -> str:
    rows = [[name.replace("_", " "), str(value)] for name, value in config.items()]
    table = render_table(["setting", "value"], rows, "Settings")
    return f"<section><h2>What counted</h2>{table}</section>"
