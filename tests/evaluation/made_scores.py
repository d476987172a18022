"""Scores of systems that never were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from resonate_audio.evaluation.scores.scored import ClipScore, Failure, MetricCard, SystemScores


def system(
    name: str,
    values: Mapping[str, float | Sequence[float | None] | None],
    metric: str = "clap",
    worst: float | None = None,
    failures: Mapping[str, Failure] | None = None,
    protocol: Mapping[str, str] | None = None,
    fingerprint: str = "one",
) -> SystemScores:
    """A system scored with one metric: by prompt's id its value, or those of its takes."""
    clips = []
    for prompt_id, given in values.items():
        takes = given if isinstance(given, Sequence) else [given]
        for seed, value in enumerate(takes):
            failure = (failures or {}).get(prompt_id)
            clips.append(
                ClipScore(
                    id=prompt_id,
                    prompt=f"sound {prompt_id}",
                    seed=seed,
                    file=f"clips/{prompt_id}_{seed}.flac",
                    values={} if value is None or failure else {metric: value},
                    failure=failure,
                    wall_s=1.0,
                    seconds=10.0,
                )
            )
    return SystemScores(
        system=name,
        protocol=dict(protocol or {"prompts": "made"}),
        cards=(MetricCard(name=metric, fingerprint=fingerprint, worst=worst),),
        clips=tuple(clips),
    )
