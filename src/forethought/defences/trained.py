"""Defences that change weights: what each trains, costs and is for. `planned` ones are not built yet.

The others are the methods of `forethought train --method`, by the same names. They are described here and not read from
there: what a defence is must be known without loading torch.
"""

from __future__ import annotations

from forethought.defences.base import Defence

_ADAPTER = "a LoRA adapter on all linear layers, or all weights"
_SCOT = "Yang et al. 2025, arXiv 2501.19180"
_VERDICT = "log-odds of the verdict"


def _ablation(name: str, title: str, shows: str) -> Defence:
    return Defence(
        id=f"scot_{name}",
        title=f"SCoT, {title}",
        paper=f"ours, an ablation of {_SCOT}",
        kind="training",
        trains=_ADAPTER,
        cost="as SCoT",
        when_to_choose=f"to see {shows}",
        score=_VERDICT,
    )


_ABLATIONS = (
    _ablation("no_variants", "without variants", "what restyled rows add"),
    _ablation("no_benign", "without harmless rows", "how much is refused when nothing harmless is taught"),
    _ablation("no_contrast", "without look-alikes", "what harmless rows that look harmful add"),
    _ablation("no_styled_benign", "harmless rows never restyled", "whether a disguise alone gets refused"),
    _ablation("full", "every rule walked", "what a longer thought adds"),
    _ablation("paper", "the paper's headings", "whether headings do as well as tags"),
    _ablation("constant_refusal", "one refusal for all", "what refusals that name the rule add"),
)

TRAINED: tuple[Defence, ...] = (
    Defence(
        id="refusal",
        title="Refusal training",
        paper=f"{_SCOT} (ablation without reasoning)",
        kind="training",
        trains=_ADAPTER,
        cost="one pass over the rows; nothing at inference",
        when_to_choose="as the yardstick for reasoning: the same rows without it",
    ),
    Defence(
        id="refusal_augmented",
        title="Refusal training with variants",
        paper=f"{_SCOT} (ablation without reasoning)",
        kind="training",
        trains=_ADAPTER,
        cost="one pass over more rows; nothing at inference",
        when_to_choose="disguises are expected and no thought may be shown or paid for",
    ),
    Defence(
        id="scot",
        title="Safety chain of thought (SCoT)",
        paper=_SCOT,
        kind="training",
        trains=_ADAPTER,
        cost="one pass over the rows; a thought of some 40 tokens before each answer",
        when_to_choose="refusals have to name the rule, and the operating point has to be set afterwards",
        score=_VERDICT,
    ),
    Defence(
        id="scot_split",
        title="SCoT, answers by the base model",
        paper=f"ours, after {_SCOT}",
        kind="training",
        trains=_ADAPTER,
        cost="as SCoT, and a second prompt for requests that are allowed",
        when_to_choose="ability on allowed requests has to stay the base model's own",
        score=_VERDICT,
    ),
    *_ABLATIONS,
    Defence(
        id="reasoning_first",
        title="Reasoning-to-defend (R2D)",
        paper="Zhu et al. 2025, arXiv 2502.12970",
        kind="training",
        trains=_ADAPTER,
        cost="one pass over distilled reasoning; a long thought before each answer",
        when_to_choose="a teacher that reasons is at hand and the model is to reason as it goes",
        planned=True,
    ),
    Defence(
        id="policy_reasoning",
        title="Policy reasoning: every rule is walked",
        paper="in the manner of STAR-1, Wang et al. 2025, arXiv 2504.01903",
        kind="training",
        trains=_ADAPTER,
        cost="one pass over the rows without variants; a thought over every rule before each answer",
        when_to_choose="the thought has to show that every rule was looked at",
        score=_VERDICT,
    ),
    Defence(
        id="deliberative",
        title="Deliberative alignment",
        paper="Guan et al. 2024, arXiv 2412.16339",
        kind="training",
        trains=_ADAPTER,
        cost="the model's own thoughts with the policy in its prompt, filtered; then one pass",
        when_to_choose="the model follows the policy when it is in the prompt, and the prompt is to go",
        planned=True,
    ),
    Defence(
        id="scot_dpo",
        title="SCoT by preference (DPO)",
        paper="Rafailov et al. 2023, arXiv 2305.18290; for safe reasoning, STAIR: Zhang et al. 2025, arXiv 2502.02384",
        kind="training",
        trains=_ADAPTER,
        cost="two completions a row and a reference pass over both; at inference as SCoT",
        when_to_choose="SCoT gives the wrong verdict with confidence: the opposite one is taught against",
        score=_VERDICT,
    ),
    Defence(
        id="circuit_breaker",
        title="Circuit breakers (RR)",
        paper="Zou et al. 2024, arXiv 2406.04313",
        kind="training",
        trains="a LoRA adapter on all linear layers",
        cost="the base model's answers to harmful requests; two forward passes a step; nothing at inference",
        when_to_choose="attacks put words into the model's mouth; garbled answers to harmful requests are acceptable",
    ),
    Defence(
        id="latent_adversarial",
        title="Latent adversarial training (LAT)",
        paper="Sheshadri et al. 2024, arXiv 2407.15549",
        kind="training",
        trains=_ADAPTER,
        cost="the base model's answers to harmful requests; about 35 passes over each harmful row, not one",
        when_to_choose="unforeseen attacks are expected, and training may take longer",
    ),
    Defence(
        id="continuous_adversarial",
        title="Continuous adversarial training (CAT)",
        paper="Xhonneux et al. 2024, arXiv 2405.15589",
        kind="training",
        trains=_ADAPTER,
        cost="the base model's answers to harmful requests; about 23 passes over each harmful row, not one",
        when_to_choose="optimised suffixes are expected, and R2D2 is out of reach",
    ),
    Defence(
        id="r2d2",
        title="R2D2",
        paper="Mazeika et al. 2024, arXiv 2402.04249",
        kind="training",
        trains="all weights",
        cost="suffixes refreshed by GCG throughout training: hundreds of times the passes of refusal training",
        when_to_choose="GCG is the attack that matters and accelerators are at hand",
        planned=True,
    ),
    Defence(
        id="scot_hardened",
        title="SCoT, hardened",
        paper="ours",
        kind="training",
        trains=_ADAPTER,
        cost="several rounds of attack and training",
        when_to_choose="adaptive attacks are expected",
        score=_VERDICT,
        planned=True,
    ),
    Defence(
        id="scot_recovery",
        title="SCoT with recovery",
        paper="ours, after Qi et al. 2024, arXiv 2406.05946",
        kind="training",
        trains=_ADAPTER,
        cost="as SCoT, with half of the harmful rows once more from a bad start",
        when_to_choose="the model's turn can be prefilled or its thought skipped",
        score=_VERDICT,
    ),
    Defence(
        id="scot_rl",
        title="SCoT with a verifiable reward",
        paper="ours, with GRPO: Shao et al. 2024, arXiv 2402.03300",
        kind="training",
        trains=_ADAPTER,
        cost="sampled thoughts for every step, after SCoT",
        when_to_choose="over-refusal stays too high after SCoT, and compute is at hand",
        score=_VERDICT,
        planned=True,
    ),
)
