"""The full-band vocoder: sines, noise and a free part, added as spectra and inverted once.

A convolution over mels gives a steady mel the same answer at every hop, so what an inverse-STFT
vocoder [Vocos, arXiv:2306.00814] makes of a steady sound repeats with the hop: a grid of lines
86 Hz apart in rain, and harmonics pulled to its multiples. Two of the three parts cannot repeat:

* sines, one per low band, whose phase is the running sum of a predicted frequency [as in the
  FFT⁻¹ synthesis of Rodet and Depalle 1992];
* noise, fresh in every frame, shaped by a predicted gain per bin;
* the free part, real and imaginary parts per bin, for onsets and whatever else has a shape in time.

All are on the scale of the envelope that the mel itself says, so even an untrained network makes
noise of the right colour.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from resonate_audio.audio.mel import MelConfig, mel_basis, mel_edges
from resonate_audio.core.config import NetworkConfig

MEL_CENTRE, MEL_SPREAD = -6.0, 4.0
"""About mean and deviation of the log-mels of recordings, in nats: what the network is given."""
LOG_GAIN_RANGE = (-8.0, 3.0)
"""Of the noise against the envelope: from inaudible to twenty times as loud."""
SINE_REACH = 0.39
"""How far a sine may move from the middle of its band, in widths of the band's triangle."""
SINE_START = -1.5
"""Log-level of untrained sines against a sine that fills its band."""
LOBE = range(-1, 3)
"""Bins around a sine, relative to the bin below it, that its main lobe fills."""
PEAK_BANDS, PEAK_HOPS = 7, 9
"""What is read around each cell of the mel."""
PEAK_BLOCK = 32
"""Hops, of one row or of several together, that are read at a time where nothing is learnt."""
NOISE_SEED = 20261128
NOISE_BLOCK = 128
"""Frames of noise drawn at a time, so that a longer sound begins with the noise of a shorter."""


class PartsVocoderConfig(NetworkConfig):
    """Sizes of the vocoder of parts; its mels are natural logarithms up to half the rate."""

    kind: Literal["parts"] = "parts"
    sample_rate_hz: PositiveInt = 44_100
    num_bands: PositiveInt = 128
    mel_n_fft: PositiveInt = 2048
    """Window of the mel front end."""
    hop_samples: PositiveInt = 512
    frames_per_hop: PositiveInt = 2
    """Spectra made for each hop of the mel."""
    n_fft: PositiveInt = 1024
    """Window of these spectra: shorter than the mel's, for sharp onsets."""
    dim: PositiveInt = 320
    mlp_dim: PositiveInt = 640
    dilations: tuple[PositiveInt, ...] = Field((1, 1, 1, 2, 1, 2, 1, 2), min_length=1)
    """One block each: how many hops its outer taps are away."""
    peak_dim: PositiveInt = 64
    """Width of the small network that reads each band's neighbourhood."""
    num_sines: PositiveInt = 96
    """Lowest bands that have a sine; higher up, a sine is as good as noise."""

    @model_validator(mode="after")
    def _frames_fit(self) -> PartsVocoderConfig:
        if self.hop_samples % self.frames_per_hop or self.n_fft % self.frame_hop:
            raise ValueError(
                f"hop_samples {self.hop_samples}, frames_per_hop {self.frames_per_hop}, n_fft "
                f"{self.n_fft}: expected a hop of whole frames and a window of whole frame hops"
            )
        if self.n_fft < 2 * self.frame_hop or (self.n_fft - self.frame_hop) % 2:
            raise ValueError(
                f"n_fft {self.n_fft} with {self.frame_hop} samples a frame: expected at least "
                "twice as many, and an even difference"
            )
        if self.mel_n_fft % self.n_fft:
            raise ValueError(f"mel_n_fft {self.mel_n_fft}: expected a multiple of {self.n_fft}")
        if self.num_sines > self.num_bands:
            raise ValueError(f"num_sines {self.num_sines}: expected at most {self.num_bands}")
        return self

    @property
    def frame_hop(self) -> int:
        """Samples from one spectrum to the next."""
        return self.hop_samples // self.frames_per_hop

    @property
    def num_bins(self) -> int:
        """Bins of the one-sided spectra."""
        return self.n_fft // 2 + 1

    def mel_config(self) -> MelConfig:
        """The front end whose mels this vocoder reads."""
        return MelConfig(
            sample_rate_hz=self.sample_rate_hz,
            n_fft=self.mel_n_fft,
            hop_samples=self.hop_samples,
            num_bands=self.num_bands,
            max_hz=self.sample_rate_hz / 2,
            log="ln",
        )


@dataclass(frozen=True)
class Parts:
    """What the network says of a sound."""

    free: Complex[Tensor, "row frame bin"]
    noise_gain: Float[Tensor, "row frame bin"]
    """Root mean square of the noise's spectrum."""
    sines: Complex[Tensor, "row frame bin"]
    phase: Float[Tensor, "row frame sine"]
    """Of the sines in the middle of each frame, radians, whole turns not taken off."""
    sine_hz: Float[Tensor, "row hop sine"]
    sine_share: Float[Tensor, "row hop sine"]
    """Amplitude of a sine, in units of one that fills its band as the mel says."""
    noise_share: Float[Tensor, "row hop sine"]
    """Amplitude of the noise in the middle of the band, in the same sense."""


@dataclass(frozen=True)
class KnownPhase:
    """Where the sines of a tile have to be at one of its frames, since they run on from before."""

    frame: int
    phase: Float[Tensor, "row sine"]


class FrameNoise:
    """Complex normal noise of every frame, always the same; what is asked for goes forward."""

    def __init__(self, num_bins: int) -> None:
        self._generator = torch.Generator().manual_seed(NOISE_SEED)
        self._drawn = torch.empty(0, num_bins, 2)
        self._first = 0

    def frames(self, start: int, stop: int) -> Float[Tensor, "frame bin 2"]:
        """Noise of frames ``start`` to ``stop``; what is before ``start`` is forgotten."""
        num_bins = self._drawn.shape[1]
        blocks = [self._drawn]
        while self._first + sum(map(len, blocks)) < stop:
            blocks.append(torch.randn(NOISE_BLOCK, num_bins, 2, generator=self._generator))
        self._drawn = torch.cat(blocks)[start - self._first :]
        self._first = start
        return self._drawn[: stop - start]


class PartsVocoder(nn.Module):
    """Log-mel (nats) to waveform, hops × hop_samples samples."""

    window: Tensor
    middle_hz: Tensor
    middle_bin: Tensor
    bands_to_bins: Tensor
    reach_hz: Tensor
    sine_level: Tensor
    start_phase: Tensor

    def __init__(self, config: PartsVocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.sample_rate_hz = config.sample_rate_hz
        self.hop_samples = config.hop_samples
        self.embed = nn.Linear(3 * config.num_bands, config.dim)
        self.norm_in = nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(
            TapBlock(config.dim, config.mlp_dim, dilation, 1 / len(config.dilations))
            for dilation in config.dilations
        )
        self.norm_out = nn.LayerNorm(config.dim)
        num_values = 3 * config.frames_per_hop * config.num_bins + 2 * config.num_sines
        self.head = nn.Linear(config.dim, num_values)
        # What the mel says, and not learnt: a bin whose envelope has learnt its way down has no
        # gradient to come back by, and stays a hole in every noise.
        self.envelope = nn.Linear(config.num_bands, config.num_bins).requires_grad_(False)
        self.peaks = PeakReader(config.num_bands, config.peak_dim)
        self._set_constants()
        self._reset_parameters()

    @property
    def halo_hops(self) -> int:
        """Hops to either side that the parts depend on; phases and noise run on from the start."""
        config = self.config
        return 2 + sum(config.dilations) + config.n_fft // config.hop_samples

    def forward(self, mel: Float[Tensor, "row band hop"]) -> Float[Tensor, "row sample"]:
        """Synthesise; in evaluation mode the noise is the same in every row and call."""
        return self.add(self.parts(mel))

    @torch.no_grad()
    def vocode_tiled(
        self, mel: Float[Tensor, "row band hop"], tile_hops: int
    ) -> Float[Tensor, "row sample"]:
        """Synthesise tile by tile, so that memory does not grow with the length.

        Sines and noise run on from tile to tile, and the result is that of one pass up to
        rounding. On a CPU row by row, whose memory is then used again: the same bits, sooner.
        """
        rows = torch.split(mel, 1) if mel.device.type == "cpu" else (mel,)
        return torch.cat([self._in_tiles(row, tile_hops) for row in rows])

    def _in_tiles(self, mel: Tensor, tile: int) -> Tensor:
        config, halo, hops = self.config, self.halo_hops, mel.shape[-1]
        if hops <= tile + 2 * halo:
            made: Tensor = self(mel)
            return made
        per_hop, noise = config.frames_per_hop, FrameNoise(config.num_bins)
        known, tiles = None, []
        for start in range(0, hops, tile):
            stop, first = min(start + tile, hops), max(0, start - halo)
            last = min(stop + halo, hops)
            parts = self.parts(mel[..., first:last], known)
            drawn = noise.frames(first * per_hop, last * per_hop)[None].to(mel.device)
            samples = self._join(parts, drawn)
            begin, end = (place * config.hop_samples for place in (start - first, stop - first))
            tiles.append(samples[:, begin:end])
            if stop < hops:
                there = parts.phase[:, (stop - first) * per_hop]
                known = KnownPhase(min(stop, halo) * per_hop, there.remainder(2 * math.pi))
        return torch.cat(tiles, dim=1)

    def add(self, parts: Parts) -> Float[Tensor, "row sample"]:
        """Draw the noise, and make one sound of the three parts."""
        like = parts.noise_gain
        rows, num_frames, num_bins = like.shape
        if self.training:
            drawn = torch.randn(rows, num_frames, num_bins, 2, device=like.device)
        else:
            drawn = FrameNoise(num_bins).frames(0, num_frames)[None].to(like.device)
        return self._join(parts, drawn)

    def _join(self, parts: Parts, drawn: Tensor) -> Tensor:
        noise = self._scaled(drawn) * parts.noise_gain
        return self.synthesize(parts.free + noise + parts.sines)

    def parts(self, mel: Float[Tensor, "row band hop"], known: KnownPhase | None = None) -> Parts:
        """Predict the parts, on the scale of an unnormalised Hann STFT.

        Args:
            mel: log-mel in nats.
            known: where the sines are, for a tile of a longer sound.
        """
        mel = mel.transpose(1, 2)
        hidden = self.norm_in(self.embed(self._standardized(mel)))
        for block in self.blocks:
            hidden = block(hidden)
        values = self.head(self.norm_out(hidden)).float()
        peaks = self.peaks((mel - MEL_CENTRE) / MEL_SPREAD).float()
        whole = nullcontext() if mel.is_meta else torch.autocast(mel.device.type, enabled=False)
        with whole:
            return self._parts(mel.float(), values, peaks, known)

    def _parts(self, mel: Tensor, values: Tensor, peaks: Tensor, known: KnownPhase | None) -> Parts:
        config = self.config
        rows, hops, _ = mel.shape
        num_cells = config.frames_per_hop * config.num_bins
        sizes = [3 * num_cells, config.num_sines, config.num_sines]
        cells, pitch, level = torch.split(values, sizes, dim=-1)
        log_envelope = F.linear(mel, self.envelope.weight.float(), self.envelope.bias.float())
        # A full-scale sine has magnitude n_fft / 4; an untrained network must not overflow.
        envelope = log_envelope.clamp(max=math.log(config.n_fft)).exp()
        envelope = envelope.repeat_interleave(config.frames_per_hop, dim=1)
        frames = (rows, hops * config.frames_per_hop, config.num_bins)
        real, imaginary, gain = (c.reshape(frames) for c in torch.split(cells, num_cells, dim=-1))
        local = peaks[..., 0] @ self.bands_to_bins.float().T
        local = local.repeat_interleave(config.frames_per_hop, dim=1)
        pitch = pitch + peaks[..., : config.num_sines, 1]
        level = level + peaks[..., : config.num_sines, 2]
        noise_gain = (gain + local).clamp(*LOG_GAIN_RANGE).exp()
        in_bands = noise_gain[..., self.middle_bin]
        sine_hz = self.middle_hz + self.reach_hz * torch.tanh(pitch)
        log_level = mel[..., : config.num_sines] + self.sine_level + level
        frame_hz = self._per_frame(sine_hz)
        phase = self._phase(frame_hz, known)
        amplitude = self._per_frame(log_level.clamp(max=0.5).exp())
        return Parts(
            free=torch.complex(envelope * real, envelope * imaginary),
            noise_gain=envelope * noise_gain,
            sines=self.sine_spectra(frame_hz, amplitude, phase),
            phase=phase,
            sine_hz=sine_hz,
            sine_share=(SINE_START + level).clamp(max=LOG_GAIN_RANGE[1]).exp(),
            noise_share=in_bands.reshape(rows, hops, -1, config.num_sines).mean(2),
        )

    def sine_spectra(
        self,
        sine_hz: Float[Tensor, "row frame sine"],
        level: Float[Tensor, "row frame sine"],
        phase: Float[Tensor, "row frame sine"] | None = None,
    ) -> Complex[Tensor, "row frame bin"]:
        """STFT of sines whose phases run on: φ_m = φ_{m-1} + π (f_{m-1} + f_m) · hop / rate.

        A sine d bins away from bin k adds (−1)^k (A N / 4) e^{iφ} sin(πd) / (πd (1 − d²)) there,
        the Hann window's spectrum; φ is its phase in the middle of the frame.

        Args:
            sine_hz: frequency of each sine at each frame.
            level: amplitude of each, in units of full scale.
            phase: φ at each frame; where they begin by themselves if None.
        """
        config = self.config
        phase = self._phase(sine_hz) if phase is None else phase
        position = sine_hz * (config.n_fft / self.sample_rate_hz)
        below = position.detach().floor()
        share = (position - below).clamp(1e-3, 1 - 1e-3)  # at 0 and 1 the lobe is 0 / 0
        distance = share[..., None] - torch.tensor(LOBE, device=share.device)
        # sin(π(share − j)) and (−1)^(k + j) alternate together
        sign = 1 - 2 * below.remainder(2)
        height = level * sign * torch.sin(math.pi * share) * (config.n_fft / (4 * math.pi))
        lobe = height[..., None] / (distance * (1 - distance.square()))
        bins = below.long()[..., None] + torch.tensor(LOBE, device=share.device)
        lobe = lobe * ((bins >= 0) & (bins < config.num_bins))
        bins = bins.clamp(0, config.num_bins - 1).flatten(2)
        empty = lobe.new_zeros(*lobe.shape[:2], config.num_bins)
        real = empty.scatter_add(2, bins, (lobe * phase.cos()[..., None]).flatten(2))
        imaginary = empty.scatter_add(2, bins, (lobe * phase.sin()[..., None]).flatten(2))
        return torch.complex(real, imaginary)

    def synthesize(self, spectra: Complex[Tensor, "row frame bin"]) -> Float[Tensor, "row sample"]:
        """Least-squares inverse STFT, trimmed to frames × frame_hop samples.

        A loud prediction may pass ±1: the caller scales it, since clipping would distort it here
        and stop its gradient in training.
        """
        config = self.config
        frames = torch.fft.irfft(spectra, n=config.n_fft, dim=-1) * self.window
        weights = self.window.square().expand(1, frames.shape[1], -1)
        samples = self._overlap(frames) / self._overlap(weights).clamp_min(1e-8)
        pad = (config.n_fft - config.frame_hop) // 2
        return samples[:, pad : pad + frames.shape[1] * config.frame_hop]

    def _standardized(self, mel: Tensor) -> Tensor:
        """Each hop beside its neighbours, at unit deviation."""
        mel = mel.to(self.embed.weight.dtype)
        return _with_taps((mel - MEL_CENTRE) / MEL_SPREAD, 1)

    def _phase(self, sine_hz: Tensor, known: KnownPhase | None = None) -> Tensor:
        """Running phase at the middle of each frame, radians, sums kept small by whole turns."""
        turns = sine_hz * (self.config.frame_hop / self.sample_rate_hz)
        steps = 0.5 * (turns[:, 1:] + turns[:, :-1])
        steps = steps - steps.detach().round()
        start = self.start_phase.expand(len(steps), 1, -1)
        phase = 2 * math.pi * torch.cat([start, steps], dim=1).cumsum(1)
        return phase if known is None else phase + (known.phase - phase[:, known.frame])[:, None]

    def _per_frame(self, values: Tensor) -> Tensor:
        """From one value a hop to one a frame, on the line between hops."""
        scale = float(self.config.frames_per_hop)
        longer = F.interpolate(values.transpose(1, 2), scale_factor=scale, mode="linear")
        return longer.transpose(1, 2)

    def _scaled(self, drawn: Float[Tensor, "_ frame bin 2"]) -> Complex[Tensor, "_ frame bin"]:
        """Complex normal noise whose overlapping frames sum to the power of their gain.

        The inverse STFT keeps a 1 / √(n_fft Σw²/hop) of the amplitude of independent frames, where
        frames of one wave would keep 1 / √Σw².
        """
        gain = math.sqrt(self.config.n_fft / self.config.frame_hop)
        return torch.view_as_complex(drawn * (gain / math.sqrt(2)))

    def _overlap(self, frames: Tensor) -> Tensor:
        """Sum frames (row, frame, sample), each ``frame_hop`` after the one before."""
        parts = frames.split(self.config.frame_hop, dim=-1)  # type: ignore[no-untyped-call]
        last = len(parts) - 1
        shifted = [F.pad(part, (0, 0, i, last - i)) for i, part in enumerate(parts)]
        return torch.stack(shifted).sum(0).flatten(1)

    def _set_constants(self) -> None:
        # With numbers even where only a shape is wanted: these functions on the meta device take
        # a second, to import what works out their shapes.
        device = torch.get_default_device()
        with torch.device("cpu"):
            constants = self._constants()
        for name, value in constants.items():
            self.register_buffer(name, value.to(device), persistent=False)

    def _constants(self) -> dict[str, Tensor]:
        config, count = self.config, self.config.num_sines
        edges = mel_edges(config.mel_config()).float()
        width = (edges[2:] - edges[:-2])[:count]
        # A sine of amplitude A in the middle of band b gives mel_b = A · n_fft/4 · 1.5 · 2/width.
        in_mel = (config.mel_n_fft / 4 * 1.5 * 2 / width).log()
        middle_hz = edges[1:-1][:count].clone()
        mixture, _ = envelope_guess(config.mel_config())
        return {
            "window": torch.hann_window(config.n_fft),
            "middle_hz": middle_hz,
            "middle_bin": (middle_hz / (config.sample_rate_hz / config.n_fft)).round().long(),
            "reach_hz": SINE_REACH * width,
            "sine_level": SINE_START - in_mel,
            "bands_to_bins": mixture[:: config.mel_n_fft // config.n_fft].clone(),
            "start_phase": (torch.arange(count) * 0.6180339887).remainder(1),
        }

    def _reset_parameters(self) -> None:
        if self.head.weight.is_meta:
            return
        for module in self.modules():
            if isinstance(module, nn.Linear) and module not in self.peaks.layers:
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        config, ratio = self.config, self.config.mel_n_fft // self.config.n_fft
        weight, bias = envelope_guess(config.mel_config())
        with torch.no_grad():
            # noise in a window of 1/ratio has 1/√ratio of the magnitude
            self.envelope.weight.copy_(weight[::ratio])
            self.envelope.bias.copy_(bias[::ratio] - 0.5 * math.log(ratio))
            self.head.weight[: 2 * config.frames_per_hop * config.num_bins] *= 0.3


def envelope_guess(
    config: MelConfig,
) -> tuple[Float[Tensor, "bin band"], Float[Tensor, " bin"]]:
    """Affine map from log-mels to the log-magnitude of a spectrum that is flat inside each band.

    For such a spectrum mel_b = log(|S| · area_b), so ln|S| at a band's centre is ln mel − ln area;
    bins between two centres take the linear mixture.
    """
    basis = mel_basis(config)
    area = basis.sum(dim=1)
    bins = torch.arange(config.num_bins, dtype=torch.float64)
    centres = (basis * bins).sum(dim=1) / area.clamp(min=1e-12)
    right = torch.searchsorted(centres.contiguous(), bins).clamp(1, config.num_bands - 1)
    left = right - 1
    span = (centres[right] - centres[left]).clamp(min=1e-12)
    share = ((bins - centres[left]) / span).clamp(0, 1)
    mixture = F.one_hot(left, config.num_bands) * (1 - share)[:, None]
    mixture = mixture + F.one_hot(right, config.num_bands) * share[:, None]
    base = 1.0 if config.log == "ln" else math.log(10)
    return (mixture * base).float(), -(mixture @ area.clamp(min=1e-12).log()).float()


class PeakReader(nn.Module):
    """Reads from a band's neighbours in frequency and time: noise or sine, and where.

    One small network for all bands: whether a peak is steady is told by the same few numbers
    everywhere, and the network beside it would have to learn that band by band.
    """

    def __init__(self, num_bands: int, dim: int) -> None:
        super().__init__()
        self.read = nn.Linear(PEAK_BANDS * PEAK_HOPS, dim)
        self.band = nn.Parameter(torch.zeros(num_bands, dim))
        self.think = nn.Linear(dim, dim)
        self.say = nn.Linear(dim, 3)
        nn.init.zeros_(self.say.weight)
        nn.init.zeros_(self.say.bias)

    @property
    def layers(self) -> tuple[nn.Linear, ...]:
        """All of them, with PyTorch's own start but for the last."""
        return (self.read, self.think, self.say)

    def forward(self, x: Float[Tensor, "row hop band"]) -> Float[Tensor, "row hop band 3"]:
        """Log-gain of the noise, pitch and log-level of the sine, to be added."""
        x = x.to(self.read.weight.dtype)
        reach = (PEAK_BANDS // 2,) * 2 + (PEAK_HOPS // 2,) * 2
        around = F.pad(x[:, None], reach, mode="replicate")[:, 0]
        around = around.unfold(1, PEAK_HOPS, 1).unfold(2, PEAK_BANDS, 1)
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu":
            return self._read(around, x)
        # Sixty-three values for every cell of the mel: a few hops at a time stay in the cache.
        size = max(1, PEAK_BLOCK // len(x))
        blocks = zip(torch.split(around, size, 1), torch.split(x, size, 1), strict=True)
        return torch.cat([self._read(*block) for block in blocks], dim=1)

    def _read(self, around: Tensor, x: Tensor) -> Tensor:
        hidden = F.gelu(self.read(around.flatten(3) - x[..., None]) + self.band)
        return cast(Tensor, self.say(F.gelu(self.think(hidden))))


class TapBlock(nn.Module):
    """Norm, three taps into a GELU layer and back, scaled, on the residual: two matrix products.

    A depthwise convolution would have fewer weights, but no processor's matrix unit can do it.
    """

    def __init__(self, dim: int, mlp_dim: int, dilation: int, scale: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(3 * dim, mlp_dim)
        self.narrow = nn.Linear(mlp_dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map (row, hop, channel) to the same shape."""
        new = F.gelu(self.widen(_with_taps(self.norm(x), self.dilation)))
        return x + self.scale * cast(Tensor, self.narrow(new))


def _with_taps(x: Tensor, dilation: int) -> Tensor:
    """Each position beside those ``dilation`` before and after, zeros beyond the ends."""
    padded = F.pad(x, (0, 0, dilation, dilation))
    return torch.cat([padded[:, : -2 * dilation], x, padded[:, 2 * dilation :]], dim=-1)
