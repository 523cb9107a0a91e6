"""Group-relative policy optimisation on the verifiable reward: TRL's trainer, our decoder and our reward.

Shao et al. 2024, arXiv 2402.03300: of each request a group of turns is drawn, and each turn is moved towards or away
from by how much its reward differs from its group's mean. No value model is needed, and none is trained.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from forethought.chat import encode_completion, encode_prompt, end_tokens
from forethought.disk import require, told_when_full
from forethought.errors import ConfigError, InputError
from forethought.manifest import key_of
from forethought.models.decode import Decoder, Row, draws_for
from forethought.models.weights import resolve_dtype, resolve_model
from forethought.reasoning import Format, markers
from forethought.records import Example, Message
from forethought.training.config import TrainConfig, is_first
from forethought.training.fit import claim, disk_need, last_checkpoint
from forethought.training.methods.base import Job, Material
from forethought.training.objective import evaluating
from forethought.training.reward import RLSettings, Turn, reward, right_verdict, sample_seed
from forethought.training.trainer import OnStep, shared_arguments


def roll_out(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    seeds: Sequence[int],
    fmt: Format,
    temperature: float,
    max_new_tokens: int,
) -> list[Row]:
    """A turn for each conversation, in order, `made` behind `prompt`; equal conversations need seeds of their own.

    The prompt ends with the thought's opening marker, which every turn begins with at inference, too.

    Nothing is steered: verdict, markers and end are drawn like all else, so that each token is the policy's own and
    bears its gradient. The model decodes in evaluation mode and is given back as it was.
    """
    opening = encode_completion(tokenizer, _opening(fmt), end=False)
    rows = []
    for place, (messages, seed) in enumerate(zip(conversations, seeds, strict=True)):
        prompt = encode_prompt(tokenizer, messages) + opening
        rows.append(Row(place, prompt, max_new_tokens, draws=draws_for(temperature, seed, prompt)))
    with evaluating(model):
        Decoder(model, tokenizer, end_tokens(tokenizer)).run(rows)
    return rows


def _opening(fmt: Format) -> str:
    return markers(fmt)[0] + "\n"


def turn_of(tokenizer: Any, completion_ids: Sequence[int], fmt: Format) -> Turn:
    """A completion as a whole turn. A thought that was never closed is as long as the completion."""
    text = str(tokenizer.decode(completion_ids, skip_special_tokens=True))
    thought, closed, _ = text.partition(markers(fmt)[1])
    tokens = len(encode_completion(tokenizer, thought, end=False)) if closed else len(completion_ids)
    return Turn(text=_opening(fmt) + text, thought_tokens=tokens)


def optimise(start: Path, job: Job, settings: RLSettings) -> dict[str, float]:
    """Trains on from a supervised adapter (or full model) in `start` and saves the same kind into `job.out`.

    Checkpoints stand in `job.out`/checkpoints; a stopped run goes on from the last, with the draws that it would have
    had. Returns counts: rows (requests seen), tokens (drawn and read), steps, and the last step's mean reward.
    Raises InputError where not both terms have labelled rows, ModelError where the folder holds another run's
    checkpoints, ConfigError where groups can't be divided among processes.
    """
    material, config = job.material, job.config
    order = in_order(material.examples, settings, config.seed)
    said = {"base": job.base, "rows": [row.model_dump() for row in order], "format": material.format}
    claim(job.out, key_of({**said, "config": config.model_dump(), "settings": settings.model_dump()}))
    model, tokenizer = _policy_model(start, job.base, config)
    prompts = [[message.model_dump() for message in example.request.messages] for example in order]
    policy = _Policy(tokenizer, order, material, settings, config.seed)
    with job.progress.bar(job.title) as bar:
        with warnings.catch_warnings():  # a rollout function is experimental there, and says so every time
            warnings.simplefilter("ignore", UserWarning)
            trainer = GRPOTrainer(
                model=model,
                reward_funcs=policy.worth,
                args=arguments(config, settings, job.out),
                train_dataset=Dataset.from_dict({"prompt": prompts, "place": list(range(len(order)))}),
                processing_class=tokenizer,
                rollout_func=policy.draw,
                callbacks=[_Progress(bar.step)],
            )
        trainer.remove_callback(PrinterCallback)
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise ConfigError(
                "a sharded policy", "can't draw turns: our decoder reads whole weights", "Use one process, or DDP"
            )
        last = last_checkpoint(job.out)
        need, what = disk_need(trainer.model, job.out, True), "the training, with its checkpoints,"
        require(job.out, need, what)
        with told_when_full(job.out, need, what):
            trainer.train(resume_from_checkpoint=str(last) if last else None)
    if is_first():  # the trained adapter alone, not the copy that the divergence is taken from; or the full model
        trained = trainer.accelerator.unwrap_model(trainer.model)
        adapters = {"selected_adapters": ["default"]} if hasattr(trained, "peft_config") else {}
        trained.save_pretrained(str(job.out), **adapters)
        tokenizer.save_pretrained(str(job.out))
    rewards = [entry["reward"] for entry in trainer.state.log_history if entry.get("reward") is not None]
    return {
        "rows": float(len(order)),
        "tokens": float(trainer.state.num_input_tokens_seen),
        "steps": float(trainer.state.global_step),
    } | ({"reward": float(rewards[-1])} if rewards else {})


@dataclass(frozen=True)
class _Policy:
    """What TRL asks about turns: how they are drawn, and what they are worth."""

    tokenizer: Any
    order: Sequence[Example]
    material: Material
    settings: RLSettings
    seed: int

    def worth(self, completion_ids: list[list[int]], place: list[int], log_metric: Any, **rest: Any) -> list[Any]:
        """Its reward function; None is a turn without a reward, which moves nothing."""
        given = self.material
        found = [
            reward(
                turn_of(self.tokenizer, ids, given.format),
                self.order[at],
                given.policy,
                given.format,
                self.settings.weights,
            )
            for ids, at in zip(completion_ids, place, strict=True)
        ]
        log_metric("passed", sum(one.gate is None for one in found) / len(found))
        return [one.value for one in found]

    def draw(self, prompts: list[list[dict[str, str]]], trainer: Any) -> dict[str, Any]:
        """Its rollout function: one turn for each prompt; a prompt stands there once for each of its turns."""
        first = trainer.accelerator.process_index * len(prompts)
        step = trainer.state.global_step
        made = roll_out(
            trainer.accelerator.unwrap_model(trainer.model),
            self.tokenizer,
            [[Message.model_validate(message) for message in prompt] for prompt in prompts],
            [sample_seed(self.seed, step, first + place) for place in range(len(prompts))],
            self.material.format,
            self.settings.temperature,
            self.settings.max_new_tokens,
        )
        return {
            "prompt_ids": [row.prompt for row in made],
            "completion_ids": [row.made for row in made],
            "logprobs": None,  # drawn by the policy that is moved: there is nothing to correct for
        }


def in_order(examples: Sequence[Example], settings: RLSettings, seed: int) -> list[Example]:
    """The requests of all steps, in their order: harmful and harmless in turn, each term shuffled anew when it ends.

    Rows without a usable label are left out.
    """
    terms = [[e for e in examples if right_verdict(e) == verdict] for verdict in ("refuse", "comply")]
    if not all(terms):
        raise InputError(
            "method 'scot_rl'", "needs harmful and harmless rows whose labels fit their reasoning", "Build rows of both"
        )
    rng = random.Random(f"{seed}:grpo")
    waiting: list[list[Example]] = [[], []]
    order = []
    for place in range(settings.steps * settings.requests):
        term = place % 2
        if not waiting[term]:
            waiting[term] = rng.sample(terms[term], len(terms[term]))
        order.append(waiting[term].pop())
    return order


def _policy_model(start: Path, base: str, config: TrainConfig) -> tuple[Any, Any]:
    tokenizer: Any = AutoTokenizer.from_pretrained(str(start), padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.method == "full":
        return AutoModelForCausalLM.from_pretrained(str(start), dtype=torch.float32), tokenizer
    weights: Any = AutoModelForCausalLM.from_pretrained(resolve_model(base), dtype=resolve_dtype("auto"))
    return PeftModel.from_pretrained(weights, str(start), is_trainable=True), tokenizer


def arguments(config: TrainConfig, settings: RLSettings, out: Path) -> Any:
    """TRL's arguments: one update is one generation of `requests` groups, read a group at a time.

    Raises ConfigError where the groups can't be divided among processes.
    """
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if settings.requests % processes:  # each process reads whole groups
        raise ConfigError(
            f"requests: {settings.requests}", f"can't be divided among {processes} processes", "Use a multiple of it"
        )
    return GRPOConfig(
        **shared_arguments(config, out),
        learning_rate=config.learning_rate * settings.rate_share,
        lr_scheduler_type="constant_with_warmup",
        num_train_epochs=1,
        per_device_train_batch_size=settings.group,
        gradient_accumulation_steps=settings.requests // processes,
        num_generations=settings.group,
        shuffle_dataset=False,  # the order is ours: balanced, and the same after a resume
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        beta=settings.beta,
        loss_type="grpo",  # as published: the mean over each turn's tokens, then over turns
        disable_dropout=True,  # a turn is drawn and read by the same policy
        save_steps=settings.checkpoint_steps,
        logging_steps=1,
        report_to=[],
    )


class _Progress(TrainerCallback):  # type: ignore[misc]
    """Tells the caller about steps, with the last mean reward."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._told = -1

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        # The closing summary may repeat the last step's reward.
        if logs and logs.get("reward") is not None and state.global_step != self._told:
            self._told = state.global_step
            told = {key: float(logs[key]) for key in ("reward", "passed", "kl") if logs.get(key) is not None}
            self._on_step(state.global_step, state.max_steps, told)
