"""A report as CSV, one line a cell, and as a LaTeX table in the form of the paper's Table 1."""

from __future__ import annotations

from collections.abc import Sequence

from resonate_audio.core.documents.csv_text import format_csv
from resonate_audio.evaluation.report.make import Cell, Report

COLUMNS = (
    "system", "metric", "title", "value", "low", "high", "prompts", "clips", "failed", "left_out",
    "change", "change_low", "change_high", "p", "p_holm", "better", "was_reward", "fingerprint",
)  # fmt: skip
SUBJECTIVE = ("ovl", "rel", "mos")
"""Columns of listening tests, which stand apart."""
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def render_csv(report: Report) -> str:
    """Every cell of the report; what is not known is empty."""
    rows: list[list[object]] = [list(COLUMNS)]
    cards = {card.name: card for card in report.cards}
    for cell in report.cells:
        card = cards[cell.metric]
        rows.append([
            cell.system,
            cell.metric,
            card.title or card.name,
            *_mean_fields(cell),
            *_change_fields(cell),
            "yes" if cell.is_reward else "",
            card.fingerprint,
        ])  # fmt: skip
    return format_csv(rows)


def _mean_fields(cell: Cell) -> list[float | int | None]:
    mean = cell.mean
    if mean is None:
        return [cell.set_value, None, None, None, None, None, None]
    return [
        mean.value,
        mean.low,
        mean.high,
        mean.num_prompts,
        mean.num_clips,
        len(mean.failed),
        len(mean.left_out),
    ]


def _change_fields(cell: Cell) -> list[float | str | None]:
    change = cell.change
    if change is None:
        return [None] * 6
    better = {True: "yes", False: "no", None: ""}[cell.is_better]
    return [change.value, change.low, change.high, change.p, cell.p_holm, better]


def render_latex(report: Report) -> str:
    r"""Methods, parameters, NFE, objective and subjective metrics; best bold. Needs booktabs.

    A star marks a difference from the baseline with a corrected p under 0.05, a dagger a judge
    that the system was trained on.
    """
    objective = [c.name for c in report.cards if c.name.lower() not in SUBJECTIVE]
    subjective = [c.name for c in report.cards if c.name.lower() in SUBJECTIVE]
    titles = {card.name: card.title or card.name for card in report.cards}
    metrics = [*objective, *subjective]
    names = ["Model", "Params", "NFE", *(titles[name] for name in metrics)]
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape_latex(_caption(report))}}}",
        rf"\begin{{tabular}}{{lrr{'c' * len(metrics)}}}",
        r"\toprule",
        *_heads(len(objective), len(subjective)),
        " & ".join(escape_latex(name) for name in names) + r" \\",
        r"\midrule",
        *(_line(report, system.name, metrics) for system in report.systems),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Plain text as LaTeX prints it."""
    return "".join(_TEX.get(letter, letter) for letter in text)


def _caption(report: Report) -> str:
    prompts = report.protocol.get("prompt_set", "")
    shown = f"{report.title} on {prompts}" if prompts else report.title
    against = f" * differs from {report.title_of(report.baseline)}" if report.baseline else ""
    tested = f"{against} (sign flips over prompts, Holm, p < 0.05)." if against else ""
    return f"{shown}. Best in bold.{tested}"


def _heads(num_objective: int, num_subjective: int) -> list[str]:
    """The line over the columns' names."""
    if not num_objective or not num_subjective:
        return []
    last = 3 + num_objective
    return [
        rf" & & & \multicolumn{{{num_objective}}}{{c}}{{Objective Metrics}} & "
        rf"\multicolumn{{{num_subjective}}}{{c}}{{Subjective Metrics}} \\",
        rf"\cmidrule(lr){{4-{last}}} \cmidrule(lr){{{last + 1}-{last + num_subjective}}}",
    ]


def _line(report: Report, system: str, metrics: Sequence[str]) -> str:
    found = next(one for one in report.systems if one.name == system)
    cells = [found.title, found.facts.get("params", "-"), found.facts.get("nfe", "-")]
    numbers = [_number(report, report.cell(system, metric)) for metric in metrics]
    return " & ".join([*(escape_latex(cell) for cell in cells), *numbers]) + r" \\"


def _number(report: Report, cell: Cell) -> str:
    if cell.value is None:
        return "-"
    digits = f"{cell.value:.3f}"
    shown = rf"\textbf{{{digits}}}" if cell.system in report.best(cell.metric) else digits
    marks = ("*" if cell.is_better is not None else "") + (r"\dagger" if cell.is_reward else "")
    return f"{shown}$^{{{marks}}}$" if marks else shown
