"""The nodes: load a model, generate, vary, replace a stretch, and let a judge choose.

A sound is ComfyUI's AUDIO: ``{"waveform": (batch, channel, sample) float tensor in [-1, 1],
"sample_rate": int}``. Sounds made here have one channel; of those that come in, the mean of the
channels is heard. A zero for steps or guidance means the model's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resonate_audio import Audio, Resonate

CATEGORY = "audio/resonate"
MODEL = "RESONATE_MODEL"
MAX_TAKES = 16
MAX_SECONDS = 600.0
PROMPT = ("STRING", {"default": "a rooster crows, then rain falls", "multiline": True})
OWN_PROMPT = ("STRING", {"default": "", "multiline": True, "tooltip": "What to hear there."})
SEED = ("INT", {"default": 0, "min": 0, "max": 2**32 - 1, "control_after_generate": True})
TAKES = ("INT", {"default": 1, "min": 1, "max": MAX_TAKES})
STEPS = ("INT", {"default": 0, "min": 0, "max": 1000, "tooltip": "0: the model's own."})
GUIDANCE = ("FLOAT", {"default": 0.0, "min": 0.0, "max": 100.0, "step": 0.1})


def to_comfy(sounds: Sequence[Audio]) -> dict[str, Any]:
    """Sounds of equal length and rate as one AUDIO."""
    rows = torch.stack([torch.from_numpy(sound.samples.copy()) for sound in sounds])
    return {"waveform": rows[:, None, :], "sample_rate": sounds[0].sample_rate_hz}


def one_channel(audio: dict[str, Any]) -> torch.Tensor:
    """The rows of an AUDIO, (batch, sample): the mean of their channels."""
    rows: torch.Tensor = audio["waveform"].detach().to("cpu", torch.float32).mean(dim=1)
    return rows


def from_comfy(audio: dict[str, Any]) -> list[Audio]:
    """Each row of an AUDIO as a sound of one channel."""
    from resonate_audio import Audio

    rate_hz = int(audio["sample_rate"])
    return [Audio(row.contiguous().numpy(), rate_hz) for row in one_channel(audio)]


def settings(steps: int, guidance: float) -> dict[str, Any]:
    """Settings of a generation; what is zero is left to the model."""
    return {"num_inference_steps": steps or None, "guidance_scale": guidance or None}


class ResonateLoad:
    """Load a model by name, folder or hub id."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI shows."""
        return {
            "required": {
                "model": ("STRING", {"default": "nano", "tooltip": "nano, resonate, a folder, …"}),
                "device": (["auto", "cuda", "mps", "cpu"],),
            },
            "optional": {
                "adapter": ("STRING", {"default": "", "tooltip": "FILE or FILE:weight"}),
            },
        }

    RETURN_TYPES = (MODEL,)
    RETURN_NAMES = ("model",)
    FUNCTION = "load"
    CATEGORY = CATEGORY

    def load(self, model: str, device: str, adapter: str = "") -> tuple[Resonate]:
        """Load it; ComfyUI keeps it until a field changes."""
        from resonate_audio import Resonate

        place = None if device == "auto" else device
        adapters = [adapter] if adapter.strip() else []
        return (Resonate.from_pretrained(model.strip(), place, adapters=adapters),)


class ResonateGenerate:
    """Make takes of a text."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI shows."""
        seconds = {"default": 5.0, "min": 0.1, "max": MAX_SECONDS, "step": 0.1}
        return {
            "required": {
                "model": (MODEL,),
                "prompt": PROMPT,
                "seconds": ("FLOAT", seconds),
                "takes": TAKES,
                "seed": SEED,
            },
            "optional": {
                "negative_prompt": ("STRING", {"default": "", "multiline": True}),
                "steps": STEPS,
                "guidance": GUIDANCE,
            },
        }

    RETURN_TYPES = ("AUDIO",)
    FUNCTION = "generate"
    CATEGORY = CATEGORY

    def generate(
        self,
        model: Resonate,
        prompt: str,
        seconds: float,
        takes: int,
        seed: int,
        negative_prompt: str = "",
        steps: int = 0,
        guidance: float = 0.0,
    ) -> tuple[dict[str, Any]]:
        """One AUDIO with a row a take; take n has the seed + n."""
        sounds = model.generate(
            [prompt] * takes,
            negative_prompt,
            seconds,
            seeds=list(range(seed, seed + takes)),
            **settings(steps, guidance),
        )
        return (to_comfy(sounds),)


class ResonateVary:
    """Make sounds like those that come in."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI shows."""
        strength = {"default": 0.6, "min": 0.0, "max": 1.0, "step": 0.05}
        return {
            "required": {
                "model": (MODEL,),
                "audio": ("AUDIO",),
                "strength": ("FLOAT", strength),
                "prompt": OWN_PROMPT,
                "takes": TAKES,
                "seed": SEED,
            },
            "optional": {"steps": STEPS, "guidance": GUIDANCE},
        }

    RETURN_TYPES = ("AUDIO",)
    FUNCTION = "vary"
    CATEGORY = CATEGORY

    def vary(
        self,
        model: Resonate,
        audio: dict[str, Any],
        strength: float,
        prompt: str,
        takes: int,
        seed: int,
        steps: int = 0,
        guidance: float = 0.0,
    ) -> tuple[dict[str, Any]]:
        """Takes of each row, one after the other."""
        options: dict[str, Any] = settings(steps, guidance) | {"takes": takes}
        made = [
            sound
            for row, source in enumerate(from_comfy(audio))
            for sound in model.vary(
                source, strength, prompt or None, seeds=seed + row * takes, **options
            )
        ]
        return (to_comfy(made),)


class ResonateReplace:
    """Make a stretch of each sound anew; outside it every sample stays."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI shows."""
        return {
            "required": {
                "model": (MODEL,),
                "audio": ("AUDIO",),
                "start": ("FLOAT", {"default": 1.0, "min": 0.0, "max": MAX_SECONDS, "step": 0.01}),
                "stop": ("FLOAT", {"default": 2.0, "min": 0.0, "max": MAX_SECONDS, "step": 0.01}),
                "prompt": OWN_PROMPT,
                "seed": SEED,
            },
            "optional": {"steps": STEPS, "guidance": GUIDANCE},
        }

    RETURN_TYPES = ("AUDIO",)
    FUNCTION = "replace"
    CATEGORY = CATEGORY

    def replace(
        self,
        model: Resonate,
        audio: dict[str, Any],
        start: float,
        stop: float,
        prompt: str,
        seed: int,
        steps: int = 0,
        guidance: float = 0.0,
    ) -> tuple[dict[str, Any]]:
        """Each row with that stretch made anew; row n has the seed + n."""
        options: dict[str, Any] = settings(steps, guidance)
        made = [
            model.replace(source, [(start, stop)], prompt or None, seeds=seed + row, **options)[0]
            for row, source in enumerate(from_comfy(audio))
        ]
        return (to_comfy(made),)


class ResonateJudge:
    """Score every take for a text, and hand on the best."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI shows."""
        return {
            "required": {
                "audio": ("AUDIO",),
                "prompt": PROMPT,
                "judge": ("STRING", {"default": "nano-clap", "tooltip": "As resonate reward."}),
                "device": (["auto", "cuda", "mps", "cpu"],),
            }
        }

    RETURN_TYPES = ("AUDIO", "FLOAT", "STRING")
    RETURN_NAMES = ("best", "score", "report")
    FUNCTION = "judge"
    CATEGORY = CATEGORY

    def judge(
        self, audio: dict[str, Any], prompt: str, judge: str, device: str
    ) -> tuple[dict[str, Any], float, str]:
        """The best row, its score, and all scores with their parts, a line a row."""
        from resonate_audio.core.types import Waveform
        from resonate_audio.pipeline.device import choose_device
        from resonate_audio.rewards import open_reward
        from resonate_audio.rewards.desk import score_now

        heard = one_channel(audio)
        place = choose_device(None if device == "auto" else device)
        sounds = Waveform(heard, int(audio["sample_rate"]))
        rewards = score_now(open_reward(judge, place), sounds, [prompt] * len(heard))
        best = int(rewards.total.argmax())
        lines = []
        for row, score in enumerate(rewards.total.tolist()):
            parts = [f"{name} {float(values[row]):.4f}" for name, values in rewards.parts.items()]
            lines.append(f"take {row + 1}: {score:.4f}" + f" ({', '.join(parts)})" * bool(parts))
        chosen = audio | {"waveform": audio["waveform"][best : best + 1]}
        return chosen, float(rewards.total[best]), "\n".join(lines)


NODE_CLASS_MAPPINGS = {
    "ResonateLoad": ResonateLoad,
    "ResonateGenerate": ResonateGenerate,
    "ResonateVary": ResonateVary,
    "ResonateReplace": ResonateReplace,
    "ResonateJudge": ResonateJudge,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ResonateLoad": "Resonate: load a model",
    "ResonateGenerate": "Resonate: generate a sound",
    "ResonateVary": "Resonate: vary a sound",
    "ResonateReplace": "Resonate: replace a stretch",
    "ResonateJudge": "Resonate: judge and choose",
}
