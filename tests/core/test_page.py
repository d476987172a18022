"""The shell of every page: escaped, self-contained, named."""

import re

import pytest

from resonate_audio.core.page import (
    data_url,
    format_number,
    play_button,
    render_page,
    render_table,
)

NASTY = """</title><script>alert('1')</script>&amp; ${body} $script"""


def test_plain_texts_are_escaped() -> None:
    page = render_page(NASTY, NASTY, NASTY, "<main></main>")
    assert page.count("<script") == 1
    assert page.count("&lt;/title&gt;&lt;script&gt;") == 3
    assert page.count("&amp;amp; ${body} $script") == 3


def test_the_body_stands_as_it_is() -> None:
    assert "<main>$9 &amp; ${x}</main>" in render_page("t", "h", "s", "<main>$9 &amp; ${x}</main>")


def test_styles_and_scripts_join_those_of_the_shell() -> None:
    page = render_page("t", "h", "s", "", style=".mine {}", script="mine();")
    assert re.search(r"--page:.*\.mine \{\}\s*</style>", page, re.DOTALL)
    assert re.search(r"<script>.*players.*mine\(\);\s*</script>", page, re.DOTALL)


def test_a_page_needs_nothing_from_elsewhere() -> None:
    page = render_page("t", "h", "s", "")
    assert set(re.findall(r"""https?://[^\s"')]+""", page)) == {"http://www.w3.org/2000/svg"}


def test_a_play_button_says_what_is_heard() -> None:
    assert 'aria-label="Play: a &quot;dog&quot;"' in play_button('a "dog"')


def test_tables_have_headings_and_a_caption() -> None:
    table = render_table(["judge", "mean"], [["<b>", "1"]], "Scores")
    assert '<th scope="col">judge</th><th scope="col">mean</th>' in table
    assert '<tr><th scope="row">&lt;b&gt;</th><td>1</td></tr>' in table
    assert "<caption>Scores</caption>" in table


def test_a_data_address_holds_the_bytes() -> None:
    assert data_url("audio/flac", b"abc") == "data:audio/flac;base64,YWJj"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.43119, "0.4312"),
        (1250.4, "1250"),
        (-23.1, "~23.1"),
        (3.2e-5, "3.2e~5"),
        (2e12, "2e12"),
        (float("nan"), "not finite"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert format_number(value) == text.replace("~", "\N{MINUS SIGN}")
