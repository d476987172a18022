from __future__ import annotations

import pytest

from resonate_audio.core.errors import ConfigError
from resonate_audio.rewards.audio_llm.model import QWEN2_5_OMNI
from resonate_audio.rewards.audio_llm.question import WORDINGS, YES
from resonate_audio.rewards.remote.config import RemoteConfig, parse_remote_spec
from resonate_audio.rewards.remote.judge import open_remote, request_body


def test_a_spec_holds_urls_and_fields() -> None:
    config = parse_remote_spec(
        "http://a:8000/v1/|https://b/v1#model=org/judge-7B&question=official&yes=Yes,%20yes%2Cyes&no=No&retries=2"
    )
    assert config.urls == ("http://a:8000/v1", "https://b/v1")
    assert config.model == "org/judge-7B"
    assert config.wording == WORDINGS["official"]
    assert config.asked.yes == ("Yes", " yes", "yes")
    assert config.retries == 2


def test_a_question_of_ones_own_is_taken_by_its_caption_mark() -> None:
    assert parse_remote_spec("http://a/v1#model=m&question=Is it {c}%3F").wording == "Is it {c}?"


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ("http://a/v1", "model: Field required"),
        ("a:8000/v1#model=m", "is not a URL like http://host:8000/v1"),
        ("#model=m", "is not a URL"),
        ("http://a/v1|#model=m", "is not a URL"),
        ("http://a/v1#model=m&colour=red", "colour: unknown field"),
        ("http://a/v1#model=m&concurrency=0", "concurrency: Input should be greater than 0"),
        ("http://a/v1#model=m&question=Is it so%3F", "a text with one {c} where the caption"),
        ("http://a/v1#model=m&question=official", "add family=qwen2_5_omni or the like"),
        ("http://a/v1#model=m&family=llama", "family llama is none of qwen2_audio"),
        ("http://a/v1#model=m&yes=Yes", "for both yes and no"),
        ("http://a/v1#model=m&urls=http://b/v1", "option 2 after # is not field=value"),
        ("http://a/v1#model=m&yes_ids=7", "for both yes and no"),
        ("http://a/v1#model=m&yes_ids=7&no_ids=7", "cannot be both yes and no"),
        ("http://a/v1#model=m&key_env=NO_SUCH_KEY", "NO_SUCH_KEY holds no key"),
    ],
)
def test_a_bad_spec_is_one_line_that_names_the_field(spec: str, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause) as caught:
        open_remote(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    ["http://user:s3cret@a/v1#model=m", "http://a/v1?key=s3cret#model=m", "http://a/v1#s3cret"],
)
def test_a_key_in_a_spec_is_refused_and_not_repeated(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_remote_spec(spec)
    assert "s3cret" not in str(caught.value)


def test_a_family_brings_its_system_turn_and_its_official_answers() -> None:
    config = parse_remote_spec("http://a/v1#model=m&family=qwen2_5_omni&question=official")
    assert config.system_turn == QWEN2_5_OMNI.chat.system
    assert (config.asked.yes, config.asked.no) == (("Yes",), ("No",))


def test_without_a_family_all_spellings_count_and_no_system_turn_is_sent() -> None:
    config = parse_remote_spec("http://a/v1#model=m")
    assert config.asked.yes == YES
    assert config.system_turn is None


@pytest.mark.parametrize("change", ["audio_first=true", "system=Hear.", "yes_ids=1&no_ids=2"])
def test_the_fingerprint_follows_what_is_asked(change: str) -> None:
    plain, other = (parse_remote_spec(f"http://a/v1#model=m&{x}") for x in ("retries=1", change))
    assert plain.fingerprint != other.fingerprint


def test_braces_in_a_caption_are_left_alone() -> None:
    config = RemoteConfig(urls=("http://a/v1",), model="m")
    assert b"a {c} {0} b" in request_body(config, None, "", "a {c} {0} b")


def test_sound_and_system_turn_go_where_they_are_told() -> None:
    config = RemoteConfig(urls=("http://a/v1",), model="m", audio_first=True, system="Listen.")
    body = request_body(config, None, "", "a dog")
    assert body.index(b"Listen.") < body.index(b"input_audio") < body.index(b"a dog")
