"""Peak memory of converting, loading and running the published 468 M model, with random weights.

    python benchmarks/published_memory.py [--only STEP ...] [--folder FOLDER]

Writes files of the published names and shapes (float32, 3.6 GB, and an encoder of FLAN-T5-large's
sizes, 1.4 GB) into FOLDER once, then measures each step in a process of its own: the largest
resident set that the system saw (``ru_maxrss``), mapped files included, beside the bytes of the
float32 weights. Two solver steps: memory does not depend on their number. Nothing is compiled.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STEPS = ("convert", "load", "load-bfloat16", "float32", "bfloat16", "low-memory")
PROMPT = "a dog barks"


def main() -> None:
    """Make the files, then run each step in a process of its own and print a line of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/published-memory"))
    parser.add_argument("--only", nargs="*", choices=STEPS, default=list(STEPS))
    parser.add_argument("--step", choices=STEPS)
    options = parser.parse_args()
    if options.step is not None:
        print(json.dumps(measure(options.step, options.folder)))
        return
    make_files(options.folder)
    print("| step | weights, GB | peak, GB | peak / weights | s |\n|---|---:|---:|---:|---:|")
    for step in options.only:
        command = [sys.executable, __file__, "--folder", str(options.folder), "--step", step]
        environment = os.environ | {"TORCHDYNAMO_DISABLE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            sys.exit(f"{step}: {done.stderr[-1000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        weights, peak = found["weights"] / 1e9, found["peak"] / 1e9
        ratio, seconds = peak / weights, found["seconds"]
        print(f"| {step} | {weights:.2f} | {peak:.2f} | {ratio:.2f} | {seconds:.0f} |", flush=True)


def make_files(folder: Path) -> None:
    """Random weights of the published names and shapes, once."""
    import torch

    from resonate_audio.model.flow_transformer import FlowTransformer
    from resonate_audio.model.official.flow import to_official
    from resonate_audio.model.presets import RESONATE

    if (folder / "done").is_file():
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from published_files import bigvgan_state, t5_files, vae_state

    (folder / "text").mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        flow = to_official(FlowTransformer(RESONATE.transformer).state_dict())
        vae = vae_state(RESONATE.vae)  # type: ignore[arg-type]
        vocoder = bigvgan_state(RESONATE.vocoder)  # type: ignore[arg-type]
    torch.save(filled(flow), folder / "Resonate_PT.pth")
    torch.save(filled(vae), folder / "v1-44.pth")
    torch.save({"generator": filled(vocoder)}, folder / "bigvgan_generator.pt")
    (folder / "text" / "tokenizer.json").write_bytes(t5_files()["tokenizer.json"])
    write_large_t5(folder / "text")
    (folder / "done").touch()


def filled(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Small random values in the place of tensors without storage; one million, again and again."""
    import torch

    values = 0.02 * torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    made = {}
    for name, shape in shapes.items():
        repeats = -(-shape.numel() // len(values))
        made[name] = values.repeat(repeats)[: shape.numel()].reshape(shape.shape).clone()
        if name.endswith(("latent_std", "data_std", "weight_g")):
            made[name].abs_().add_(0.5)
    return made


def write_large_t5(folder: Path) -> None:
    """An encoder of FLAN-T5-large's sizes."""
    import torch
    from safetensors.torch import save_file
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=32_128, d_model=1024, d_kv=64, d_ff=2816, num_layers=24, num_heads=16,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    with torch.device("meta"):
        state = T5EncoderModel(config).state_dict()
    state.pop("encoder.embed_tokens.weight", None)
    save_file(filled(state), folder / "model.safetensors")
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))


def measure(step: str, folder: Path) -> dict[str, float]:
    """Do one step and tell the bytes of the weights, the peak of this process, and the time."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    names = ("Resonate_PT.pth", "v1-44.pth", "bigvgan_generator.pt")
    weights = sum((folder / name).stat().st_size for name in names)
    started = time.monotonic()
    if step == "convert":
        from resonate_audio.model.official.folder import convert_files

        convert_files([folder / name for name in names], folder / "model", overwrite=True,
                      text_encoder=folder / "text")  # fmt: skip
    else:
        weights += (folder / "text" / "model.safetensors").stat().st_size
        run(step, folder / "model")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"weights": weights, "peak": peak, "seconds": time.monotonic() - started}


def run(step: str, model: Path) -> None:
    """Load the model, and unless loading is the step make ten seconds of sound."""
    from resonate_audio.pipeline.path import Resonate

    dtype = "bfloat16" if "bfloat16" in step else None
    pipeline = Resonate.from_pretrained(
        model, "cpu", dtype, local_files_only=True, low_memory=step == "low-memory"
    )
    if not step.startswith("load"):
        pipeline.generate(PROMPT, num_inference_steps=2, seeds=1)


if __name__ == "__main__":
    main()
