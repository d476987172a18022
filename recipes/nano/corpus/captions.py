"""The wording of each clip: one of its class's captions, or a count of what is heard."""

from __future__ import annotations

import re

from corpus.process import Processed
from corpus.sources import stable_hash

COUNTED = {
    "dog bark": "a dog barks",
    "cat meow": "a cat meows",
    "cow moo": "a cow moos",
    "sheep bleat": "a sheep bleats",
    "goat bleat": "a goat bleats",
    "pig grunt": "a pig grunts",
    "rooster crow": "a rooster crows",
    "duck quack": "a duck quacks",
    "crow caw": "a crow caws",
    "owl hoot": "an owl hoots",
    "goose honk": "a goose honks",
    "seagull cry": "a seagull cries",
    "sneeze": "a person sneezes",
    "gunshot": "a gun fires",
    "pistol shot": "a pistol fires",
    "rifle shot": "a rifle fires",
    "shotgun blast": "a shotgun fires",
    "car horn": "a car honks",
    "hand clap": "someone claps",
    "finger snap": "someone snaps their fingers",
}
"""Classes whose events can be counted, if the clip is quiet between them."""
TIMES = {1: "once", 2: "twice", 3: "three times"}
MIN_DEPTH_DB = 22
MAX_COUNTED = 12
MAX_SINGLE_S = 2.0
PLURAL = re.compile(
    "(wolves|birds|frogs|chickens|monkeys|coyotes|bats|gulls|seagulls|cicadas|crickets|bees|"
    "a swarm|people|swords|church bells) "
)
SHORT_CALL_S, SINGLE_STEP_S, SINGLE_BLOW_S = 2.5, 0.75, 0.8


def word_clip(clip: Processed, labels: dict[str, tuple[str, ...]]) -> tuple[str, list[str]]:
    """The caption of a clip and all that fit it, chosen by its id."""
    label, of_class = clip.candidate.label, labels.get(clip.candidate.label)
    captions = list(clip.candidate.captions)
    plain = tuple(captions) == of_class
    if clip.duration_s < SHORT_CALL_S and len(captions) > 1:
        captions = [c for c in captions if not PLURAL.match(c)] or captions
    captions = _single(clip, label, plain) or captions
    caption = captions[stable_hash(clip.id) % len(captions)]
    if plain and (counted := count_caption(clip, label)):
        captions = [counted, *captions]
        if stable_hash(f"{clip.id}c") % 3:
            caption = counted
    return caption, list(dict.fromkeys([caption, *captions]))


def _single(clip: Processed, label: str, plain: bool) -> list[str]:
    """One step or one blow is not worded as many."""
    if clip.num_bursts != 1:
        return []
    if plain and clip.duration_s < SINGLE_STEP_S:
        if label.startswith("footsteps"):
            where = label.removeprefix("footsteps")
            return [f"a single footstep{where}", f"one footstep{where}"]
        if label == "barefoot footsteps":
            return ["a single barefoot step"]
    if label == "hammering" and clip.duration_s < SINGLE_BLOW_S:
        return ["a single hammer blow", "a hammer hits once"]
    return []


def count_caption(clip: Processed, label: str) -> str:
    """Say "a dog barks twice", or nothing when the clip does not tell how often."""
    countable = (
        label in COUNTED
        and clip.depth_db >= MIN_DEPTH_DB
        and clip.num_bursts <= MAX_COUNTED
        and not (clip.num_bursts == 1 and clip.duration_s > MAX_SINGLE_S)
    )
    return f"{COUNTED[label]} {TIMES.get(clip.num_bursts, 'several times')}" if countable else ""
