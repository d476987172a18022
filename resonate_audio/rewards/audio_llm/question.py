"""What an audio LLM is asked about a sound, and which words count as its answer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from resonate_audio.core.errors import ConfigError

WORDINGS = {
    "paper": (
        "Does the audio contain the sound events described by the text: {c}? "
        "Please answer yes or no."
    ),
    "official": (
        "Does this audio contain the sound events described by the text: {c}? "
        "Please only answer yes or no, without other explanations."
    ),
}
"""As printed in the paper, and as the official code asks [arXiv:2603.11661, app. and code]."""
YES = ("yes", "Yes", "YES", " yes", " Yes", " YES")
NO = ("no", "No", "NO", " no", " No", " NO")
CAPTION = "{c}"


@dataclass(frozen=True)
class Chat:
    """How a family of models lays out a conversation: ChatML with its own sign for a sound."""

    system: str | None
    """System turn that comes first; None sends none."""
    sound: str
    """What stands for the sound in the text; the audio token occurs in it once."""
    short_answers: tuple[str, str]
    """The one spelling of yes and of no that the official code looks at."""


@dataclass(frozen=True)
class Question:
    """One turn of text and sound, ready to be filled with a caption."""

    name: str
    template: str
    """The whole conversation up to the answer, with ``{c}`` where the caption goes."""
    yes: tuple[str, ...]
    no: tuple[str, ...]
    """Spellings whose probabilities are added up."""

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that change with any letter of the question or of its answers."""
        content = json.dumps([self.template, self.yes, self.no])
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    def ask(self, caption: str) -> str:
        """The conversation about one caption."""
        return self.template.replace(CAPTION, caption)


def make_question(name: str, chat: Chat) -> Question:
    """Lay out a preset, or a wording of one's own, for a family of models.

    The text comes before the sound, as in the official code. ``official`` counts one spelling of
    each answer; everything else counts all of them, in whatever case and with a space before.

    Args:
        name: a key of `WORDINGS`, or a text with ``{c}`` where the caption goes.
        chat: the family's layout.

    Raises:
        ConfigError: it is neither.
    """
    wording = WORDINGS.get(name, name)
    if wording.count(CAPTION) != 1:
        raise ConfigError(
            f"question {name!r}: expected {' or '.join(WORDINGS)}, or a text with one {CAPTION} "
            "where the caption goes"
        )
    system = "" if chat.system is None else f"<|im_start|>system\n{chat.system}<|im_end|>\n"
    turn = f"<|im_start|>user\n{wording}{chat.sound}<|im_end|>\n<|im_start|>assistant\n"
    official = name == "official"
    return Question(
        name=name if name in WORDINGS else "own",
        template=system + turn,
        yes=chat.short_answers[:1] if official else YES,
        no=chat.short_answers[1:] if official else NO,
    )
