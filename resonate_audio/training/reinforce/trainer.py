"""Online reinforcement: the loop around rollout, judge, advantage and update."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from resonate_audio.core.errors import ConfigError, RewardError, TrainingError
from resonate_audio.core.types import Prompts
from resonate_audio.data.batches import BatchPlan
from resonate_audio.model.adapter import ADAPTER_NAME, write_adapter
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.model.folder import Networks, write_networks
from resonate_audio.pipeline.guests.guest import Guest
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.detectors import find_hack_signs, rewards_diverge
from resonate_audio.training.loop.distributed import (
    ALONE,
    Ranks,
    check_split,
    unsharded,
)
from resonate_audio.training.loop.losses import over_steps
from resonate_audio.training.loop.progress import ProgressLine, read_metrics
from resonate_audio.training.loop.run_config import TrainerConfig
from resonate_audio.training.loop.task import Losses, Task, generator_for
from resonate_audio.training.loop.trainer import Trainer
from resonate_audio.training.reinforce.advantage import AdvantageConfig
from resonate_audio.training.reinforce.experience import Experience, Metrics, TakeMaker
from resonate_audio.training.reinforce.live_table import LiveTable
from resonate_audio.training.reinforce.lora import low_rank, merged_state, plain_copy
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.run_log import read_run
from resonate_audio.training.reinforce.run_page import write_run_page

TAKES_LOG, EVALUATION_LOG = "takes.jsonl", "evaluation.jsonl"
HELD_OUT = "held_out/"
START = "start"
"""Where a checkpoint says which weights the run started from."""


@dataclass(frozen=True)
class Update:
    """One optimiser update's share of an experience."""

    rows: Int[Tensor, " row"]
    """Takes to learn from."""
    first: bool
    """Nothing was learnt from this rollout yet: the policy is the one that made it."""
    generator: torch.Generator
    """On the policy's device, for fresh noise."""
    ranks: Ranks = ALONE
    on_pass: Callable[[bool], None] = lambda last: None
    """Called before each forward pass with whether it is the update's last."""

    def own_part(self, size: int) -> tuple[Int[Tensor, " own"], float]:
        """Which of ``size`` items are this process's, and their share of them.

        A process without any gets one that weighs nothing: all make equally many passes.
        """
        own = self.ranks.mine(torch.arange(size))
        return (own, len(own) / size) if len(own) else (torch.zeros(1, dtype=torch.long), 0.0)


LearningStep = Callable[[Policy, Experience, Update], Metrics]
"""Backward passes of one update, and what to log of them; the caller clears gradients before and
steps the optimiser after."""


@dataclass(frozen=True)
class ReinforcePlan:
    """What a reinforcement task repeats."""

    texts: tuple[str, ...]
    prompts_per_step: int
    takes: int
    updates_per_step: int
    advantage: AdvantageConfig
    learn: LearningStep
    from_reference: bool = False
    """Learn from takes of the model before training: offline."""
    remember_decay: float | None = None
    """Keep the weights that made the rollout, averaged with older ones by this; None: don't."""


class PolicyTask(Task):
    """A model that is taught from where it is: what is evaluated, exported and kept of it."""

    def __init__(
        self, policy: Policy, networks: Networks | Guest, text_encoder: Path | None
    ) -> None:
        """Begin a task.

        Args:
            policy: what is taught.
            networks: those around the policy, to be exported with it; or the guest it is of.
            text_encoder: folder of the text encoder, if it travels with the model.
        """
        self.policy = policy
        self.phases: dict[str, nn.Module] = {"model": policy.model}
        self.networks = networks
        self.text_encoder = text_encoder
        self.evaluate: Callable[[Path, int], Mapping[str, float]] = lambda folder, step: {}
        self.tell: Callable[[str], None] = lambda text: None
        """Is told what goes on beside the steps; a trainer puts its own words there."""
        self.is_stopping: Callable[[], bool] = lambda: False
        """Whether the run was told to stop; a trainer says so."""

    def sample(self, folder: Path, step: int) -> Mapping[str, float]:
        """Generate the evaluation prompts and have them judged."""
        return self.evaluate(folder, step)

    def export(self, folder: Path) -> None:
        """Write the taught model as a folder of the form that it was read from."""
        parts, model = self.networks, self.policy.model
        if isinstance(parts, Guest):
            parts.write(folder, merged_state(model))
            return
        assert isinstance(model, FlowTransformer)
        taught = Networks(parts.config, plain_copy(model), parts.vae, parts.vocoder)
        write_networks(folder, taught, self.text_encoder, overwrite=True)
        maps = low_rank(self.policy.model)
        if maps:
            base = self.policy.fingerprint
            write_adapter(folder / ADAPTER_NAME, maps, parts.config.name, base)

    def extra_state(self) -> dict[str, Tensor]:
        """Which model is the reference, and the averaged weights of algorithms that keep some."""
        return {START: torch.tensor(self.policy.start)} | self.policy.remembered

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Go back to what `extra_state` gave.

        Raises:
            TrainingError: the weights that the run started from are others now.
        """
        device = self.policy.device
        if int(state[START]) != self.policy.start:
            raise TrainingError(
                "the model this run started from has changed, so the reference would be another; "
                "put it back, or choose another run.output"
            )
        kept = {name: value.to(device) for name, value in state.items() if name != START}
        self.policy.remembered = kept


class ReinforceTask(PolicyTask):
    """Takes of the prompts, judged; the policy moves towards what the judge prefers."""

    def __init__(
        self,
        maker: TakeMaker,
        reward: Reward,
        plan: ReinforcePlan,
        networks: Networks | Guest,
        text_encoder: Path | None = None,
    ) -> None:
        """Put together what a run needs.

        Args:
            maker: makes takes; holds the policy.
            reward: the judge.
            plan: what is repeated.
            networks: those around the policy, to be exported with it.
            text_encoder: folder of the text encoder, if it travels with the model.
        """
        super().__init__(maker.policy, networks, text_encoder)
        self.maker = maker
        self.reward = reward
        self.plan = plan
        self.batches = BatchPlan([len(plan.texts)], [plan.prompts_per_step], maker.seed)
        self.observe: Callable[[int, Experience], None] = lambda step, experience: None

    def check_ranks(self, ranks: Ranks) -> None:
        """Refuse batches of takes that the processes cannot share evenly."""
        check_split(self.maker.sampler.rows_per_batch, ranks, "sampler.rows_per_batch")
        texts, takes = len(self.plan.texts), self.plan.takes
        most = min(self.plan.prompts_per_step, texts)
        fewest = texts % most or most  # the last batch of a pass over the prompts may be smaller
        if fewest * takes < ranks.world:
            where = "prompts_per_step" if fewest == most else f"the last batch of {texts} prompts"
            raise ConfigError(
                f"{where} · takes is {fewest} · {takes}: fewer takes than the {ranks.world} "
                "processes; make more takes, or start fewer processes"
            )

    def collect(self, step: int) -> Experience:
        """The judged rollout of one step."""
        chosen = self.batches.batch(step).rows.tolist()
        prompts = Prompts(tuple(self.plan.texts[index] for index in chosen), self.plan.takes)
        bind = self.policy.bind_reference if self.plan.from_reference else self.policy.bind
        found = self.maker.collect(prompts, self.reward, self.plan.advantage, step, bind)
        if self.plan.remember_decay is not None:  # after a judge can fail: else the next run would
            self.policy.remember(self.plan.remember_decay)  # begin this step with it done already
        return found

    def shares(self, experience: Experience) -> list[Int[Tensor, " row"]]:
        """Takes of each update: whole groups, as evenly as they go."""
        groups = experience.kept_rows().view(-1, self.plan.takes)
        parts = groups.tensor_split(self.plan.updates_per_step)
        return [part.flatten() for part in parts if len(part)]


class PolicyTrainer(Trainer):
    """A `Trainer` that listens in from the start and draws a page of the run."""

    task: PolicyTask

    @property
    def logs(self) -> tuple[Path, ...]:
        """Metrics, kept takes and judged evaluation sounds."""
        output = self.run_config.output
        return (self.metrics_path, output / TAKES_LOG, output / EVALUATION_LOG)

    def join_losses(self, values: Float[Tensor, " step"]) -> Float[Tensor, " step"]:
        """Its metrics are those of all processes already."""
        return values

    def open_progress(self) -> ProgressLine:
        """A table of rewards, trust region and seconds; plain lines without a terminal."""
        return LiveTable(self.run_config.num_steps, self.step)

    def _sample(self) -> None:
        super()._sample()
        if not self.ranks.first:
            return
        series = read_run(self.run_config.output).series
        for name, scores in series.items():
            if name.startswith(HELD_OUT) and rewards_diverge(series.get("reward/mean", ()), scores):
                judge = name.removeprefix(HELD_OUT)
                self.progress.say(
                    f"warning: the training reward rises while {judge}, which does not train, falls"
                )

    def draw(self) -> None:
        """Write the run's page: curves, takes to listen to, the recipe."""
        super().draw()
        write_run_page(self.run_config.output)

    def _loop(self, progress: ProgressLine) -> dict[str, float]:
        self.task.tell, self.task.is_stopping = progress.say, self._stop.is_set
        if self._is_unheard():
            self._sample()
        return super()._loop(progress)

    def _is_unheard(self) -> bool:
        """Whether it begins where an evaluation is due: at first, or where one was broken off."""
        every = self.run_config.sample_every
        if not every or self.step % every or self.step >= self.run_config.num_steps:
            return False
        log = self.run_config.output / EVALUATION_LOG
        heard = log.exists() and any(line["step"] == self.step for line in read_metrics(log))
        return self.step == 0 or self.ranks.any(self.ranks.first and not heard)

    def learn_once(
        self, rows: Int[Tensor, " row"], number: int, learn: Callable[[Update], Metrics]
    ) -> Metrics:
        """One optimiser update, from the gradients that ``learn`` leaves.

        Args:
            rows: what the update learns from.
            number: of the update in its step.
            learn: makes the backward passes; gives what to log.
        """
        optimizer, gradients = self.optimizers["model"], self.sums["model"]
        optimizer.zero_grad(set_to_none=True)
        seed = self.run_config.seed
        generator = generator_for(seed, self.step, self.device, f"update {number}")
        metrics = learn(Update(rows, number == 0, generator, self.ranks, gradients.on_pass))
        norm = self.clip_gradients("model")
        optimizer.step()
        named = metrics | {"grad_norm": norm}
        return {name: value.detach().float() for name, value in named.items()}


class ReinforceTrainer(PolicyTrainer):
    """A `Trainer` whose step is one rollout and the updates that follow from it."""

    task: ReinforceTask

    def __init__(self, task: ReinforceTask, config: TrainerConfig, device: torch.device) -> None:
        super().__init__(task, config, device)
        self.task = task

    def update(self) -> None:
        """One iteration: collect, learn, average."""
        experience = self._collect()
        began = time.perf_counter()
        metrics = self._learn(experience)
        seconds = experience.seconds | {"update": time.perf_counter() - began}
        metrics |= {f"seconds/{name}": torch.tensor(value) for name, value in seconds.items()}
        metrics |= reward_metrics(experience)
        if self.ranks.first:  # which has the sound of all rows
            metrics |= sign_metrics(experience)
            self.task.observe(self.step, experience)
        self.pending.add(self.step, metrics)
        self.advance()

    def _collect(self) -> Experience:
        self.model.eval()
        try:
            with unsharded(self.model):
                return self.task.collect(self.step)
        except RewardError:  # in all processes; other errors may be those of diverged weights
            self.log(self.progress)  # refuses numbers that are none, before they are kept
            if self.step:
                self.save()  # the weights are those of the last whole step
            raise
        finally:
            self.model.train()

    def _learn(self, experience: Experience) -> Losses:
        self.set_rate(self.optimizers["model"])
        learn = partial(self.task.plan.learn, self.task.policy, experience)
        logged: dict[str, list[Tensor]] = {}
        for number, rows in enumerate(self.task.shares(experience)):
            for name, value in self.learn_once(rows, number, learn).items():
                logged.setdefault(name, []).append(value)
        stacked = {name: torch.stack(values) for name, values in logged.items()}
        return {name: over_steps(name, values) for name, values in stacked.items()}


def reward_metrics(experience: Experience) -> Metrics:
    """Mean, spread and parts of a rollout's rewards, and how many groups taught nothing."""
    rewards, takes = experience.rewards, experience.rollout.prompts.takes
    groups = rewards.total.view(-1, takes)
    metrics = {
        "reward/mean": rewards.total.mean(),
        "reward/std": groups.std(dim=1, correction=0).mean(),
        "advantage/frac_zero_std": (~experience.advantages.kept).double().mean(),
    }
    parts = {f"reward/{name}": values.mean() for name, values in rewards.parts.items()}
    return {name: value.float() for name, value in (metrics | parts).items()}


def sign_metrics(experience: Experience) -> Metrics:
    """What the takes are like apart from their rewards: signs of a judge that is being gamed."""
    signs = find_hack_signs(experience.audio, experience.rollout.prompts.takes)
    return {f"detect/{name}": torch.tensor(value) for name, value in signs.means().items()}
