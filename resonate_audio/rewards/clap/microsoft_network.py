"""MS-CLAP 2023's network: its published keys, on transformers' own HTSAT and GPT-2.

The file says which network it is: every size but the picture's (four times the bands) is read from
the shapes of its weights, and its mel filters and Fourier kernels are weights too. That matters:
the package that publishes it builds filters for 32 kHz up to 14 kHz and its configuration says
44.1 kHz up to 8 kHz, and it is the filters in the file that are used.

The key names and the arithmetic were compared with the published package (msclap 1.3.4) holding
random weights of full size; the published file itself was not at hand, so that it loads is not
verified. A key that is missing or unknown is refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.checkpoint import State, load_strict

SAMPLE_RATE_HZ = 44_100
WINDOW_S = 7
HOP_SAMPLES = 320
POWER_FLOOR = 1e-10
HEAD_DIM = 64
"""Width of an attention head in every GPT-2."""
FREQUENCY_FOLDS = 4
"""The picture is four stretches of time stacked, each as tall as there are bands."""

AUDIO, TEXT = "audio_encoder.base.htsat.", "caption_encoder.base."
STFT, MEL = f"{AUDIO}spectrogram_extractor.stft.", f"{AUDIO}logmel_extractor.melW"
_UNUSED = re.compile(
    r"audio_encoder\.base\.htsat\.(tscam_conv|head)\..*"  # classes of AudioSet
    r"|.*\.attn_mask"  # which follows from the sizes
    r"|caption_encoder\.base\.h\.\d+\.attn\.(bias|masked_bias)"  # causal masks of old GPT-2 files
)
_RENAMES = (
    (re.compile(r"\.attn\.(relative_position_\w+)$"), r".attention.self.\1"),
    (re.compile(r"\.attn\.(query|key|value)\."), r".attention.self.\1."),
    (re.compile(r"\.attn\.proj\."), ".attention.output.dense."),
    (re.compile(r"\.mlp\.fc1\."), ".intermediate.dense."),
    (re.compile(r"\.mlp\.fc2\."), ".output.dense."),
    (re.compile(r"\.norm1\."), ".layernorm_before."),
    (re.compile(r"\.norm2\."), ".layernorm_after."),
    (re.compile(r"^bn0\."), "batch_norm."),
)


class Projection(nn.Module):
    """Into the space that both towers meet in: LayerNorm(e + W₂ gelu(e)), e = W₁ x."""

    def __init__(self, before: int, dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(before, dim, bias=False)
        self.linear2 = nn.Linear(dim, dim, bias=False)
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, hidden: Float[Tensor, "row before"]) -> Float[Tensor, "row dim"]:
        """One residual layer, normalised."""
        first = self.linear1(hidden)
        given: Tensor = self.layer_norm(first + self.linear2(F.gelu(first)))
        return given


class LogMel(nn.Module):
    """10 log10 max(|STFT|² M, 1e-10), frames centred on multiples of the hop, ends reflected."""

    filters: Tensor
    window: Tensor

    def __init__(self, num_bins: int, num_bands: int) -> None:
        super().__init__()
        self.n_fft = 2 * (num_bins - 1)
        self.register_buffer("filters", torch.zeros(num_bins, num_bands))
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    def forward(self, samples: Float[Tensor, "row sample"]) -> Float[Tensor, "row frame band"]:
        """Log-mel in dB of n samples: 1 + n // hop frames."""
        spectrum = torch.stft(
            samples,
            self.n_fft,
            HOP_SAMPLES,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return 10 * (power.transpose(1, 2) @ self.filters).clamp_min(POWER_FLOOR).log10()


class MSClap(nn.Module):
    """Windows of seven seconds and token rows to vectors of one space."""

    def __init__(self, state: State, source: str) -> None:
        """An untrained network of the sizes that a published state has.

        Raises:
            CheckpointError: a weight that says a size is missing.
        """
        from transformers import GPT2Model
        from transformers.models.clap.modeling_clap import ClapAudioEncoder

        super().__init__()
        self.mel = LogMel(*_sizes(state, MEL, source))
        self.hear: Any = ClapAudioEncoder(_audio_config(state, source))
        self.read: Any = GPT2Model(_text_config(state, source))
        width, before = _sizes(state, "audio_encoder.projection.linear1.weight", source)
        self.audio_projection = Projection(before, width)
        width, before = _sizes(state, "caption_encoder.projection.linear1.weight", source)
        self.text_projection = Projection(before, width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embed_windows(self, windows: Float[Tensor, "row sample"]) -> Float[Tensor, "row dim"]:
        """Unit vectors of windows of `WINDOW_S` seconds at `SAMPLE_RATE_HZ`."""
        heard = self.hear(self.mel(windows)[:, None]).pooler_output
        return F.normalize(self.audio_projection(heard), dim=1)

    def embed_tokens(
        self, tokens: Int64[Tensor, "row token"], last: Int64[Tensor, " row"]
    ) -> Float[Tensor, "row dim"]:
        """Unit vectors of texts.

        Args:
            tokens: numbers of GPT-2's tokens, filled up on the right with anything.
            last: position of the token whose state stands for the text; what comes after it is
                not seen, since GPT-2 looks back only.
        """
        hidden = self.read(input_ids=tokens).last_hidden_state
        rows = torch.arange(len(tokens), device=tokens.device)
        return F.normalize(self.text_projection(hidden[rows, last]), dim=1)


def build_ms_clap(state: State, source: str | Path) -> MSClap:
    """The network of a published state, ready to judge.

    Args:
        state: under the published key names.
        source: named in errors.

    Raises:
        CheckpointError: names the first key that is missing, unknown, misshapen or not finite, or
            says that the file's Fourier kernels are not those of a Hann window.
    """
    network = MSClap(state, str(source))
    _check_kernels(state, network.mel, str(source))
    load_strict(network, rename_keys(state), str(source))
    return network.eval().requires_grad_(False)


def rename_keys(state: State) -> State:
    """Published key names to ours; weights that judging does not need drop out."""
    renamed: State = {}
    for key, value in state.items():
        if _UNUSED.fullmatch(key) or key.startswith(STFT):
            continue
        if key == MEL:
            renamed["mel.filters"] = value
        elif key.startswith(AUDIO):
            renamed |= _rename_audio(key.removeprefix(AUDIO), value)
        else:
            renamed[_rename_other(key)] = value
    return renamed


def _rename_audio(key: str, value: Tensor) -> State:
    """One key of HTSAT; its joint query, key and value become three."""
    if ".attn.qkv." not in key:
        for pattern, ours in _RENAMES:
            key = pattern.sub(ours, key)
        return {f"hear.{key}": value}
    parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
    return {
        f"hear.{key.replace('.attn.qkv.', f'.attention.self.{name}.')}": part
        for name, part in parts
    }


def _rename_other(key: str) -> str:
    for theirs, ours in (
        (TEXT, "read."),
        ("audio_encoder.projection.", "audio_projection."),
        ("caption_encoder.projection.", "text_projection."),
    ):
        key = key.replace(theirs, ours) if key.startswith(theirs) else key
    return key


def _sizes(state: State, key: str, source: str) -> tuple[int, ...]:
    if key not in state:
        raise CheckpointError(
            f"{source}: {key} is missing ({len(state)} tensors found); expected the weights of "
            "MS-CLAP 2023, CLAP_weights_2023.pth"
        )
    return tuple(state[key].shape)


def _count(state: State, pattern: str) -> int:
    found = {match[1] for key in state if (match := re.match(pattern, key))}
    return len(found)


def _audio_config(state: State, source: str) -> Any:
    from transformers import ClapAudioConfig

    layers = re.escape(f"{AUDIO}layers.")
    depths = [
        _count(state, rf"{layers}{i}\.blocks\.(\d+)\.")
        for i in range(_count(state, rf"{layers}(\d+)\."))
    ]
    tables = [
        _sizes(state, f"{AUDIO}layers.{i}.blocks.0.attn.relative_position_bias_table", source)
        for i in range(len(depths))
    ]
    embedding = _sizes(state, f"{AUDIO}patch_embed.proj.weight", source)
    inner, outer = _sizes(state, f"{AUDIO}layers.0.blocks.0.mlp.fc1.weight", source)
    (num_bands,) = _sizes(state, f"{AUDIO}bn0.weight", source)
    return ClapAudioConfig(
        window_size=(math.isqrt(tables[0][0]) + 1) // 2,
        num_mel_bins=num_bands,
        spec_size=FREQUENCY_FOLDS * num_bands,
        patch_size=embedding[2],
        patch_stride=[embedding[2], embedding[2]],
        patch_embeds_hidden_size=embedding[0],
        hidden_size=_sizes(state, f"{AUDIO}norm.weight", source)[0],
        depths=depths,
        num_attention_heads=[heads for _, heads in tables],
        num_hidden_layers=len(depths),
        mlp_ratio=inner / outer,
        hidden_dropout_prob=0.0,
    )


def _text_config(state: State, source: str) -> Any:
    from transformers import GPT2Config

    vocabulary, width = _sizes(state, f"{TEXT}wte.weight", source)
    inner = _sizes(state, f"{TEXT}h.0.mlp.c_fc.weight", source)[1]
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=_sizes(state, f"{TEXT}wpe.weight", source)[0],
        n_embd=width,
        n_layer=_count(state, rf"{re.escape(TEXT)}h\.(\d+)\."),
        n_head=width // HEAD_DIM,
        n_inner=inner,
        use_cache=False,
        bos_token_id=vocabulary - 1,
        eos_token_id=vocabulary - 1,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )


def _check_kernels(state: State, mel: LogMel, source: str) -> None:
    """The file brings its Fourier transform as weights of a convolution; ours must be the same."""
    angles = torch.arange(mel.n_fft // 2 + 1)[:, None] * torch.arange(mel.n_fft) % mel.n_fft
    angles = angles.double() * (2 * math.pi / mel.n_fft)
    parts: Sequence[tuple[str, Tensor]] = (("real", angles.cos()), ("imag", -angles.sin()))
    for name, wave in parts:
        key = f"{STFT}conv_{name}.weight"
        expected = (wave * mel.window.double())[:, None].float()
        if _sizes(state, key, source) != tuple(expected.shape):
            raise CheckpointError(
                f"{source}: {key} has shape {tuple(state[key].shape)}, "
                f"expected {tuple(expected.shape)}"
            )
        if not torch.allclose(state[key].float(), expected, atol=1e-4):
            raise CheckpointError(
                f"{source}: {key} is no Fourier transform under a Hann window; this file is of "
                "another version of MS-CLAP"
            )
