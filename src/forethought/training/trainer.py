"""The one trainer: TRL's, with an objective of ours and rows in our order. Nothing else differs."""

from __future__ import annotations

import importlib.util
import math
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from peft import LoraConfig
from torch.utils.data import Sampler
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from forethought.errors import ConfigError
from forethought.models.weights import batches_in_bfloat16
from forethought.training.config import Tracker, TrainConfig, is_first
from forethought.training.held_out import PREFIX, HeldOutRows
from forethought.training.objective import Objective, Step, evaluating


def paired_order(
    lengths: Sequence[int], terms: Sequence[int], batch_size: int, seed: int, window: int = 8
) -> list[int]:
    """Row indices in an order whose consecutive runs of `batch_size` are the batches.

    Each batch holds both terms in the data's own proportion (to one row), and rows of
    similar length: each term is shuffled and sorted by length within windows of `window`
    batches. The order of batches is random; a short batch comes last. Every row stands in
    the order exactly once.
    """
    rng = random.Random(seed)
    groups = [[index for index, own in enumerate(terms) if own == term] for term in sorted(set(terms))]
    for group in groups:
        rng.shuffle(group)
    n_batches = -(-len(lengths) // batch_size)
    edges = [min(batch * batch_size, len(lengths)) for batch in range(n_batches + 1)]
    # Rows of the first term up to each edge; the other term fills what is left of a batch.
    share = len(groups[0]) / len(lengths)
    first = [round(edge * share) for edge in edges]
    cuts = [first, [edge - own for edge, own in zip(edges, first, strict=True)]]
    for group, cut in zip(groups, cuts, strict=False):
        for start in range(0, n_batches, window):
            stop = min(start + window, n_batches)
            group[cut[start] : cut[stop]] = sorted(group[cut[start] : cut[stop]], key=lambda index: lengths[index])
    batches = [
        [index for group, cut in zip(groups, cuts, strict=False) for index in group[cut[number] : cut[number + 1]]]
        for number in range(n_batches)
    ]
    full = batches[:-1] if len(batches[-1]) < batch_size else batches
    rng.shuffle(full)
    rest = [] if full is batches else [batches[-1]]
    return [index for batch in [*full, *rest] for index in batch]


class PairedSampler(Sampler[int]):
    """Rows in paired order; depends on the seed and the epoch alone, so that a resumed run sees the same rows."""

    def __init__(self, lengths: Sequence[int], terms: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._terms, self._seed = lengths, terms, seed
        self._batch_size = batch_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(paired_order(self._lengths, self._terms, self._batch_size, self._seed * 1009 + self._epoch))

    def __len__(self) -> int:
        return len(self._lengths)


FOLDER = "tensorboard"
"""In the training's folder. transformers' own default names the machine."""


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Raises ConfigError, with what to install, for a tracker that is not there."""
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"trackers: {name}", "is not installed", f"Run: pip install {name}")


def reported_to(trackers: Sequence[Tracker]) -> list[str]:
    """Names that transformers sets up by itself: all but TensorBoard, whose folder we choose."""
    return [name for name in trackers if name != "tensorboard"]


def tracker_callbacks(trackers: Sequence[Tracker], out: Path) -> list[Any]:
    """TensorBoard's callback, writing into `out`/tensorboard from the first process; none where it is not asked for."""
    if "tensorboard" not in trackers or not is_first():
        return []
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return [TensorBoardCallback(SummaryWriter(log_dir=str(out / FOLDER)))]


def shard_on_cpu(accelerator: Any) -> bool:
    """Makes the accelerator shard where its config asks for FSDP2 and processes run on CPU; returns whether it does.

    Before anything is prepared. On other devices accelerate has seen to it, and nothing is changed.
    """
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not asked or accelerator.distributed_type is not DistributedType.MULTI_CPU:
        return False
    state = accelerator.state
    state.fsdp_plugin = FullyShardedDataParallelPlugin()  # reads what the launcher set from the config file
    state.distributed_type = DistributedType.FSDP
    # Every state object reads this one, as it does where accelerate chooses FSDP itself.
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    return True


BEST_BY = "eval_total"
"""What transformers chooses the best step by."""
OnStep = Callable[[int, int, dict[str, float]], None]
"""(steps done, steps in all, last value of each term of the loss as `loss_TERM`)."""


class ObjectiveTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's SFT trainer, whose loss is an Objective's and whose rows come from a PairedSampler."""

    control: Any

    def __init__(
        self,
        *args: Any,
        objective: Objective,
        sampler: PairedSampler,
        measure: HeldOutRows | None = None,
        benign_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self._objective, self._sampler = objective, sampler
        self._measure, self._benign_weight = measure, benign_weight
        self._terms: dict[str, list[float]] = defaultdict(list)
        self.data_wait_s = 0.0
        """Seconds in which nothing was done but wait for the next batch."""
        super().__init__(*args, **kwargs)
        if self.args.bf16 and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):  # those don't autocast
            _leave_inputs_alone(self.model)
        self.add_callback(EpochOrder(sampler))
        self.add_callback(LeanCheckpointing())

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if shard_on_cpu(self.accelerator):
            self.is_fsdp_enabled = True

    def _get_train_sampler(self, train_dataset: Any = None) -> PairedSampler:
        return self._sampler

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, values = self._objective.loss(model, inputs, self._step())
        for name, value in values.items():
            self._terms[name].append(value)
        return (loss, {}) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The held-out losses of the model as it stands; the random state of training is not touched.

        Returned is what the best step has the least of: refusal + weight * benign.
        """
        assert self._measure is not None
        model = self.model_wrapped
        with evaluating(model), torch.no_grad(), self.compute_loss_context_manager():
            losses = {term: round(value, 6) for term, value in self._measure(model).items()}
        self.log({PREFIX + term: value for term, value in losses.items()})
        metrics = {BEST_BY: sum(loss * (self._benign_weight if term == "benign" else 1.0)
                                for term, loss in losses.items())}  # fmt: skip
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if not self.control.should_training_stop:  # transformers asks after a step, and a run may have ended before
            super()._run_epoch(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        found = super().get_batch_samples(*args, **kwargs)
        self.data_wait_s += time.perf_counter() - began
        return found

    def _step(self) -> Step:
        return Step(
            number=self.state.global_step,
            total=max(self.state.max_steps, 1),
            processes=self.accelerator.num_processes,
            summed=lambda value: self.accelerator.reduce(value, reduction="sum"),
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if not any(name.startswith(PREFIX) for name in logs):  # an evaluation is no end of a stretch of training
            for name, values in self._terms.items():
                if values:
                    logs[f"loss_{name}"] = round(sum(values) / len(values), 4)
            self._terms.clear()
        super().log(logs, start_time)


def _leave_inputs_alone(model: Any) -> None:
    """Keeps PEFT from casting what goes into an adapter to the adapter's float32: autocast casts it back at once.

    Two copies of every adapted layer's input are saved, and the memory of one.
    """
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False


class EpochOrder(TrainerCallback):  # type: ignore[misc]
    """Tells the sampler the epoch.

    accelerate does so itself, but not where a resumed run skips batches among several processes (accelerate 1.15:
    `DataLoaderShard.set_epoch` looks two samplers deep, and this one stands three deep).
    """

    def __init__(self, sampler: PairedSampler) -> None:
        self._sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._sampler.set_epoch(int(state.epoch or 0))


class LeanCheckpointing(TrainerCallback):  # type: ignore[misc]
    """Frees the embeddings from gradients that gradient checkpointing asks for.

    TRL has the embeddings' output require them, which only reentrant checkpointing needs. It costs a second forward and
    a backward pass through every layer below the lowest adapter.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        reentrant = (args.gradient_checkpointing_kwargs or {}).get("use_reentrant", True)
        if args.gradient_checkpointing and not reentrant and hasattr(model, "peft_config"):
            model.disable_input_require_grads()


class Progress(TrainerCallback):  # type: ignore[misc]
    """Tells the caller about steps, and nothing to the terminal."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._last: dict[str, float] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        terms = {key: value for key, value in (logs or {}).items() if key.startswith("loss_")}
        self._last = terms or self._last

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._on_step(state.global_step, state.max_steps, self._last)


def lora(config: TrainConfig, n_layers: int) -> LoraConfig:
    """The adapter that a config asks for, on a model of `n_layers` layers.

    Raises ConfigError where it leaves no layer: PEFT would adapt them all.
    """
    if config.skip_layers >= n_layers:
        rule = f"leaves none of the model's {n_layers} layers to adapt"
        raise ConfigError(f"skip_layers: {config.skip_layers}", rule, f"Skip fewer than {n_layers}")
    top = math.ceil(n_layers * config.depth)
    if config.skip_layers >= top:
        raise ConfigError(
            f"depth: {config.depth}", f"leaves no layer above the {config.skip_layers} skipped", "Raise it"
        )
    layers = list(range(config.skip_layers, top)) if config.skip_layers or top < n_layers else None
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.target_modules),
        layers_to_transform=layers,
        use_dora=config.dora,
        task_type="CAUSAL_LM",
    )


def disturb(model: Any, deviation: float, seed: int) -> None:
    """Fills the second factor of every LoRA pair of a model with noise, the same for a seed in every process."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            noise = torch.randn(parameter.shape, generator=generator) * deviation
            parameter.data.copy_(noise.to(parameter.dtype))


def shared_arguments(config: TrainConfig, out: Path) -> dict[str, Any]:
    """What every trainer of TRL's is given; checkpoints go to `out`/checkpoints."""
    return {
        "output_dir": str(out / "checkpoints"),
        "warmup_steps": config.warmup,
        "max_grad_norm": config.max_grad_norm,
        "gradient_checkpointing": config.gradient_checkpointing,
        "bf16": batches_in_bfloat16(),
        "seed": config.seed,
        "data_seed": config.seed,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }


def arguments(config: TrainConfig, out: Path, measured: int | None = None) -> SFTConfig:
    """TRL's arguments for a config; with held-out rows, which are `measured` every so many steps, the best step's
    weights are those that are left, and each measured step has a checkpoint.

    The batch is divided among processes, so that a recipe means the same on one device and on many.
    Raises ConfigError where it can't be divided.
    """
    args = SFTConfig(
        **shared_arguments(config, out),
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        lr_scheduler_type="cosine",
        gradient_checkpointing_kwargs={"use_reentrant": False} if config.gradient_checkpointing else None,
        save_steps=measured or config.checkpoint_steps,
        eval_strategy="steps" if measured else "no",
        eval_steps=measured,
        load_best_model_at_end=bool(measured),
        metric_for_best_model=BEST_BY if measured else None,
        greater_is_better=False if measured else None,
        logging_steps=5,
        report_to=reported_to(config.trackers),
        run_name=out.name,
        max_length=None,
        remove_unused_columns=False,  # the collator takes what it knows
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    if config.batch_size % args.world_size:
        raise ConfigError(
            f"batch_size: {config.batch_size}",
            f"can't be divided among {args.world_size} processes",
            f"Use a multiple of {args.world_size}",
        )
    args.per_device_train_batch_size = config.batch_size // args.world_size
    return args
