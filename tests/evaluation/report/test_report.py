"""The report: numbers as statistics give them, nothing left out, a page that holds it all."""

import csv
import io
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from html_tags import Page

from resonate_audio.audio.io import decode_audio, write_audio
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.core.types import Audio
from resonate_audio.evaluation.clips.folder import (
    PROMPTS,
    SYSTEM,
    ClipLine,
    System,
    file_sha256,
    open_manifest,
)
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, PromptSet, write_prompt_set
from resonate_audio.evaluation.report.clips import choose_clips, draw_levels, hear_clips
from resonate_audio.evaluation.report.make import (
    Report,
    ScoredFolder,
    make_report,
    read_folder,
    reward_metrics,
)
from resonate_audio.evaluation.report.page import (
    PageConfig,
    choose_pairs,
    choose_ranking,
    render_report,
    summarize,
    write_report,
)
from resonate_audio.evaluation.report.pictures import Cloud, Scatter, rank_correlation
from resonate_audio.evaluation.report.pictures import render_scatter as draw_scatter
from resonate_audio.evaluation.report.tables import escape_latex, render_csv, render_latex
from resonate_audio.evaluation.scores.scored import (
    ClipScore,
    Failure,
    MetricCard,
    SystemScores,
    write_scores,
)
from resonate_audio.evaluation.statistics import metric_mean, paired_difference

NASTY = """"><script>alert('1')</script>&amp; ${x} $prompt"""
HERE = Path()
CARDS = (
    MetricCard(name="clap", fingerprint="c1", title="CLAP", worst=-1.0),
    MetricCard(name="aqa", fingerprint="a1", title="AQAScore", worst=0.0),
    MetricCard(name="aqa-log-odds", fingerprint="a1"),
)


def system(
    name: str,
    shift: Mapping[str, float],
    num_prompts: int = 40,
    failures: Mapping[int, Failure] | None = None,
    rewards: tuple[str, ...] = (),
    loudness: float = -23.0,
    prompt: str = "a dog barks",
) -> SystemScores:
    """The same values for every system, but for a shift of each metric and a little noise."""
    noise = np.random.default_rng(len(name))
    clips = []
    for number in range(num_prompts):
        base = (number * 7 % num_prompts) / num_prompts
        values = {
            card.name: base + shift.get(card.name, 0.0) + 0.01 * noise.normal() for card in CARDS
        }
        failure = (failures or {}).get(number)
        clips.append(
            ClipScore(
                id=f"{number:04d}",
                prompt=prompt,
                file=f"{number:04d}.flac",
                values={} if failure else values,
                failure=failure,
                wall_s=2.0,
                seconds=10.0,
                signs={} if failure else {"loudness_lufs": loudness + base},
            )
        )
    cards = tuple(card.model_copy(update={"was_reward": card.name in rewards}) for card in CARDS)
    return SystemScores(
        system=name, protocol={"prompt_set": "made", "takes": "1"}, cards=cards, clips=tuple(clips)
    )


def report_of(*systems: SystemScores, baseline: str | None = None) -> Report:
    return make_report([ScoredFolder(HERE, one) for one in systems], baseline)


BASE = system("base", {})
HACKED = system("hacked", {"clap": -0.2, "aqa": 0.3, "aqa-log-odds": 0.3}, rewards=("aqa",))
SAME = system("same", {})


def page_of(report: Report, *systems: SystemScores, config: PageConfig | None = None) -> str:
    folders = [ScoredFolder(HERE, one) for one in systems]
    return render_report(report, folders, config or PageConfig(num_players=0), HERE)


def test_cells_are_what_statistics_say() -> None:
    cell = report_of(BASE, HACKED).cell("hacked", "clap")
    assert cell.mean == metric_mean(HACKED, "clap")
    assert cell.change == paired_difference(BASE, HACKED, "clap")


def test_p_is_corrected_for_every_change_of_the_table() -> None:
    report = report_of(BASE, HACKED, SAME)
    tested = [cell for cell in report.cells if cell.change is not None]
    assert len(tested) == 6
    smallest = min(tested, key=lambda cell: cell.change.p if cell.change else 1.0)
    assert smallest.change is not None
    assert smallest.p_holm == pytest.approx(6 * smallest.change.p)


def test_better_follows_the_direction_of_the_metric() -> None:
    lower = CARDS[0].model_copy(update={"higher_is_better": False})
    one, two = (
        scores.model_copy(update={"cards": (lower, *scores.cards[1:])}) for scores in (BASE, HACKED)
    )
    report = report_of(one, two)
    assert report.cell("hacked", "clap").is_better is True
    assert report.best("clap") == {"hacked"}


def test_the_baseline_is_the_first_unless_one_is_named() -> None:
    assert report_of(BASE, HACKED).baseline == "base"
    assert report_of(BASE, HACKED, baseline="hacked").baseline == "hacked"
    assert report_of(BASE).baseline is None


def test_a_baseline_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no system is called other; there are base, hacked"):
        report_of(BASE, HACKED, baseline="other")


def test_two_systems_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="two systems are called base"):
        report_of(BASE, BASE)


def test_systems_that_were_not_measured_alike_are_refused() -> None:
    other = HACKED.model_copy(update={"protocol": {"prompt_set": "other", "takes": "1"}})
    with pytest.raises(ManifestError, match="prompt_set is 'made' in base and 'other' in hacked"):
        report_of(BASE, other)


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="needs a scored folder"):
        report_of()


def test_all_columns_of_a_training_judge_are_rewards() -> None:
    assert reward_metrics(HACKED) == {"aqa", "aqa-log-odds"}


def test_a_judge_that_is_happier_alone_is_warned_of() -> None:
    text = " ".join(report_of(BASE, HACKED).warnings)
    assert "training judge AQAScore is happier while CLAP got worse" in text


def test_a_gain_that_no_held_out_judge_shares_is_warned_of() -> None:
    alone = system("alone", {"aqa": 0.3}, rewards=("aqa",))
    report = report_of(BASE, alone)
    assert "only its training judge AQAScore is happier" in " ".join(report.warnings)


def test_a_gain_that_a_held_out_judge_shares_is_not_warned_of() -> None:
    honest = system("honest", {"aqa": 0.3, "clap": 0.1}, rewards=("aqa",))
    assert report_of(BASE, honest).warnings == ()


def test_a_louder_system_is_warned_of() -> None:
    louder = system("louder", {}, loudness=-19.0)
    assert "louder: against base, Loudness (LUFS) went up by 4" in " ".join(
        report_of(BASE, louder).warnings
    )


def test_changes_stand_in_deviations_of_the_baseline() -> None:
    louder = system("louder", {}, loudness=-19.0)
    change = next(c for c in report_of(BASE, louder).changes if c.role == "sound")
    spread = float(np.std([clip.signs["loudness_lufs"] for clip in BASE.clips]))
    assert change.standardized is not None
    assert change.standardized.value == pytest.approx(4.0 / spread)


def test_failed_clips_are_counted_named_and_warned_of() -> None:
    broken = system("broken", {}, failures={3: "silent", 5: "missing"})
    report = report_of(BASE, broken)
    assert report.systems[1].failures == {
        "silent": ("0003, seed 0",),
        "missing": ("0005, seed 0",),
    }
    text = page_of(report, BASE, broken)
    assert "0003, seed 0" in text
    assert "2 failed" in text
    assert "broken: 2 of 40 clips failed" in " ".join(report.warnings)


def test_a_metric_without_any_value_is_an_empty_cell() -> None:
    cards = (*CARDS, MetricCard(name="pam", fingerprint="p1"))
    report = report_of(BASE, HACKED.model_copy(update={"cards": cards}))
    assert report.cell("hacked", "pam").value is None
    assert report.cell("base", "pam").value is None


def test_values_of_sets_have_no_interval() -> None:
    card = MetricCard(name="fad", fingerprint="f", higher_is_better=False)
    one, two = (
        scores.model_copy(update={"cards": (*CARDS, card), "set_values": {"fad": value}})
        for scores, value in ((BASE, 3.0), (SAME, 2.0))
    )
    report = report_of(one, two)
    assert report.cell("same", "fad").value == 2.0
    assert report.cell("same", "fad").mean is None
    assert report.best("fad") == {"same"}
    assert "whole set" in page_of(report, one, two)


def test_time_is_of_a_second_of_sound() -> None:
    assert report_of(BASE).systems[0].real_time_factor == pytest.approx(0.2)


def counted_prompts() -> PromptSet:
    items = [
        PromptItem(
            id=f"{number:04d}",
            prompt="a dog barks",
            meta={
                "event_count": 1 + number % 2,
                "event_list": ["x"] * (1 + number % 2),
                "event_relation": ["None", "sequence"][number % 2],
                "Dimensions of evaluation": "Accuracy",
            },
        )
        for number in range(40)
    ]
    return PromptSet("made", tuple(items))


def test_the_grid_holds_means_by_number_of_events() -> None:
    report = make_report([ScoredFolder(HERE, BASE, counted_prompts())])
    cells = {(c.count, c.relation): c for c in report.grid if c.metric == "clap"}
    assert set(cells) == {(1, "single"), (2, "sequence")}
    even = [clip.values["clap"] for clip in BASE.clips if int(clip.id) % 2 == 0]
    assert cells[1, "single"].mean == pytest.approx(float(np.mean(even)))
    assert cells[1, "single"].num_prompts == 20
    assert cells[1, "single"].half_width == pytest.approx(1.96 * scipy.stats.sem(even))


def test_the_grid_of_prompts_that_say_nothing_is_empty() -> None:
    plain = PromptSet("made", (PromptItem(id="0000", prompt="a dog barks"),))
    assert make_report([ScoredFolder(HERE, BASE, plain)]).grid == ()


def test_every_number_stands_under_its_heading() -> None:
    two = HACKED.model_copy(update={"facts": {"params": "470M", "nfe": "25"}})
    report = report_of(BASE, two)
    text = page_of(report, BASE, two)
    table = re.findall(r"<table class=\"results\">.*?</table>", text)[0]
    head = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<th scope=\"col\">.*?</th>", table)]
    last = re.findall(r"<td.*?</td>", table.rpartition("<tr>")[2])
    row = dict(zip(head[1:], last, strict=True))
    assert list(row)[:2] == ["Clips", "CLAP"]
    assert row["Clips"] == "<td>40</td>"
    assert row["Params"] == "<td>470M</td>"
    mean = report.cell("hacked", "clap").mean
    assert mean is not None
    assert f"{mean.value:.3f}" in row["CLAP"]


def test_every_text_from_outside_is_escaped() -> None:
    nasty = system(NASTY, {}, prompt=NASTY, failures={0: "silent"})
    cards = (CARDS[0].model_copy(update={"title": NASTY, "details": {NASTY: NASTY}}), *CARDS[1:])
    nasty = nasty.model_copy(update={"facts": {"params": NASTY}, "cards": cards})
    page = Page(page_of(report_of(nasty), nasty))
    assert len(page.all("script")) == 1
    assert NASTY in page.words


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    text = (written(tmp_path) / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)


def test_ranks_share_ties_as_scipy_does() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 5, 50).astype(float), generator.normal(size=50)
    expected = scipy.stats.spearmanr(x, y).statistic
    assert rank_correlation(x, y) == pytest.approx(expected)


def test_what_does_not_vary_has_no_correlation() -> None:
    assert rank_correlation(np.ones(4), np.arange(4.0)) is None


def test_a_scatter_has_a_dot_for_each_clip_in_its_corner() -> None:
    cloud = Cloud("one", np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    text = draw_scatter(Scatter("x", "y", (cloud,)))
    assert "M45 286h0M955 14h0" in text


def test_pairs_are_of_different_judges() -> None:
    assert choose_pairs(report_of(BASE, HACKED)) == [("aqa", "clap")]


def test_clips_are_ranked_by_a_judge_that_no_training_used() -> None:
    cards = tuple(reversed(HACKED.cards))
    report = report_of(HACKED.model_copy(update={"cards": cards}))
    assert choose_ranking(report, None) == "clap"
    assert choose_ranking(report, "aqa") == "aqa"


def test_a_ranking_that_is_no_column_is_refused() -> None:
    with pytest.raises(ManifestError, match="no column of clips is called x; there are clap, aqa"):
        choose_ranking(report_of(BASE), "x")


def test_best_and_worst_are_the_ends_of_the_column() -> None:
    chosen = choose_clips(BASE, "clap", 2)
    values = sorted(clip.values["clap"] for clip in BASE.clips)
    assert [value for _, _, value in chosen] == [values[-1], values[-2], values[0], values[1]]
    assert [rank for rank, _, _ in chosen] == ["best", "best", "worst", "worst"]


def test_no_clip_is_both_best_and_worst() -> None:
    few = system("few", {}, num_prompts=3)
    assert len({clip.id for _, clip, _ in choose_clips(few, "clap", 5)}) == 2
    single = system("few", {}, num_prompts=1)
    assert [rank for rank, _, _ in choose_clips(single, "clap", 5)] == ["best"]


def test_failed_clips_are_not_heard() -> None:
    broken = system("broken", {}, failures=dict.fromkeys(range(39), "silent"))
    assert [clip.id for _, clip, _ in choose_clips(broken, "clap", 3)] == ["0039"]


def test_a_lower_value_is_best_where_that_is_better() -> None:
    rank, _, value = choose_clips(BASE, "clap", 1, higher_is_better=False)[0]
    assert (rank, value) == ("best", min(clip.values["clap"] for clip in BASE.clips))


def test_a_file_that_is_gone_is_told() -> None:
    [first, *_] = hear_clips([ScoredFolder(HERE / "nowhere", BASE)], "clap", 1)
    assert first.sound == ""
    assert "cannot read it" in first.trouble


@pytest.mark.parametrize("link_from", [None, HERE])
def test_a_file_that_was_changed_after_it_was_scored_is_not_played(
    tmp_path: Path, link_from: Path | None
) -> None:
    path = tmp_path / "a.wav"
    write_audio(path, Audio(np.full(8000, 0.25, np.float32), 8000))
    clip = BASE.clips[0].model_copy(update={"file": "a.wav", "sha256": file_sha256(path)})
    folder = ScoredFolder(tmp_path, BASE.model_copy(update={"clips": (clip,)}))
    assert [heard.trouble for heard in hear_clips([folder], "clap", 1, True, link_from)] == [""]
    write_audio(path, Audio(np.full(8000, 0.5, np.float32), 8000), overwrite=True)
    [heard] = hear_clips([folder], "clap", 1, True, link_from)
    assert (heard.sound, heard.trouble[:20]) == ("", "the file was changed")


def test_scores_of_clips_that_were_made_anew_are_refused(tmp_path: Path) -> None:
    clip = BASE.clips[0].model_copy(update={"sha256": "of before"})
    write_scores(tmp_path, BASE.model_copy(update={"clips": (clip,)}))
    manifest = open_manifest(tmp_path, System(name="base", source="made"), counted_prompts())
    line = ClipLine(id=clip.id, prompt=clip.prompt, seed=clip.seed, file="a.wav", sha256="of now")
    manifest.append([line])
    with pytest.raises(ManifestError, match="1 of 1 clips were made anew after they were scored"):
        read_folder(tmp_path)


def test_a_picture_shows_a_tone_at_its_height() -> None:
    from PIL import Image

    times = np.arange(16000) / 16000
    data = draw_levels(np.sin(2 * np.pi * 4000 * times).astype(np.float32), 16000)
    picture = np.asarray(Image.open(io.BytesIO(data)))
    brightest = int(np.argmax(picture[:, picture.shape[1] // 2]))
    mel = [2595 * np.log10(1 + hertz / 700) for hertz in (30, 4000, 8000)]
    expected = (1 - (mel[1] - mel[0]) / (mel[2] - mel[0])) * (len(picture) - 1)
    assert brightest == pytest.approx(expected, abs=1)


def written(folder: Path, config: PageConfig | None = None) -> Path:
    """Two systems with short sounds, and their report."""
    prompts = counted_prompts()
    for scores in (BASE, HACKED):
        place = folder / scores.system
        protocol = scores.protocol | {"prompt_set_sha256": prompts.sha256}
        write_scores(place, scores)
        write_prompt_set(place / PROMPTS, prompts)
        about = System(name=scores.system, source="made", protocol=protocol)
        (place / SYSTEM).write_text(about.model_dump_json(), encoding="utf-8")
        for clip in scores.clips:
            tone = np.sin(np.arange(4000) * 0.3 * (1 + clip.values["clap"]))
            write_audio(place / str(clip.file), Audio(0.5 * tone.astype(np.float32), 16000))
    folders = [read_folder(folder / name) for name in ("base", "hacked")]
    write_report(folder / "report.html", folders, page=config or PageConfig(num_players=1))
    return folder


def test_the_page_holds_sounds_and_pictures(tmp_path: Path) -> None:
    page = Page((written(tmp_path) / "report.html").read_text(encoding="utf-8"))
    sounds = [str(tag["src"]) for tag in page.all("audio")]
    assert len(sounds) == 4
    assert all(sound.startswith("data:audio/ogg;base64,") for sound in sounds)
    import base64

    heard = decode_audio(base64.b64decode(sounds[0].partition(",")[2]), "page")
    assert heard.duration_s == pytest.approx(0.25, abs=0.02)
    pictures = [str(tag["src"]) for tag in page.all("img")]
    assert len(pictures) == 4
    assert all(picture.startswith("data:image/png;base64,") for picture in pictures)


def test_linked_sounds_are_found_from_the_page(tmp_path: Path) -> None:
    config = PageConfig(num_players=1, link_audio=True)
    page = Page((written(tmp_path, config) / "report.html").read_text(encoding="utf-8"))
    sounds = [str(tag["src"]) for tag in page.all("audio")]
    assert len(sounds) == 4
    assert all((tmp_path / sound).is_file() for sound in sounds)


def test_the_grid_is_on_the_page(tmp_path: Path) -> None:
    text = (written(tmp_path) / "report.html").read_text(encoding="utf-8")
    assert "2 events, sequence" in text


def test_the_json_is_the_report(tmp_path: Path) -> None:
    text = (written(tmp_path) / "report.json").read_text(encoding="utf-8")
    report = Report.model_validate(json.loads(text))
    assert report.cell("hacked", "clap").change == paired_difference(BASE, HACKED, "clap")


def test_csv_has_a_line_for_each_cell() -> None:
    report = report_of(BASE, HACKED)
    rows = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert len(rows) == 6
    assert float(rows[3]["value"]) == metric_mean(HACKED, "clap").value
    assert rows[3]["better"] == "no"
    assert rows[4]["was_reward"] == "yes"


def test_latex_has_the_columns_of_the_papers_table() -> None:
    facts = {"params": "470M", "nfe": "25", "title": "Ours_1"}
    report = report_of(BASE, HACKED.model_copy(update={"facts": facts}))
    lines = render_latex(report).splitlines()
    assert r"Model & Params & NFE & CLAP & AQAScore & aqa-log-odds \\" in lines
    row = next(line for line in lines if line.startswith(r"Ours\_1 & 470M & 25 & "))
    assert r"$^{*\dagger}$" in row
    assert row.count(r"\textbf") == 2


def test_latex_sets_listening_tests_apart() -> None:
    card = MetricCard(name="ovl", fingerprint="o", title="OVL")
    scores = BASE.model_copy(update={"cards": (*CARDS, card), "set_values": {"ovl": 3.5}})
    text = render_latex(report_of(scores))
    assert r"\multicolumn{1}{c}{Subjective Metrics}" in text
    assert r"\cmidrule(lr){4-6} \cmidrule(lr){7-7}" in text


def test_latex_specials_are_printed_and_not_obeyed() -> None:
    assert escape_latex(r"50%_{$x^2$}\#&~") == (
        r"50\%\_\{\$x\textasciicircum{}2\$\}\textbackslash{}\#\&\textasciitilde{}"
    )


def test_the_summary_counts_the_differences_that_hold() -> None:
    assert summarize(report_of(BASE, HACKED)) == (
        "2 systems, 80 clips. Of 3 differences from base, 3 are more than chance explains."
    )


def test_three_hundred_clips_of_three_systems_take_a_moment() -> None:
    systems = [system(name, {}, num_prompts=300) for name in ("a", "bb", "ccc")]
    began_s = time.process_time()
    page_of(report_of(*systems), *systems)
    assert time.process_time() - began_s < 3
