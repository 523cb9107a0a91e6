"""Largest difference in log-likelihood between our path through lm-eval and lm-eval alone, on the embedded model.

    python benchmarks/capability.py [FILE...]

Ours: the model as `forethought capability` loads and batches it. lm-eval's: `HFLM(pretrained=FOLDER)`, other
batches, whole prompts, all logits. Same items, plain and in the chat template; without files the project's own
look-alikes against ordinary requests are asked as questions with options. Prints one JSON object: nats,
and how many times faster ours is.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from forethought.cli.terminal import quiet
from forethought.data.shipped import shipped_requests
from forethought.measure.capability import CapabilityConfig, need_lm_eval
from forethought.measure.capability.questions import Question, QuestionSet, load_questions

N_ITEMS = 100


def shipped_questions() -> QuestionSet:
    """Two shipped requests as options of a question: nobody's benchmark, but real text of many lengths."""
    questions = []
    for one, two in zip(shipped_requests("ordinary"), shipped_requests("lookalike"), strict=False):
        text = f"Which of these is a request about {one.family.replace('-', ' ')}?"
        questions.append(Question(text=text, choices=(one.text, two.text), right=(0,)))
    unique = {question.id: question for question in questions}
    return QuestionSet(name="shipped", kind="choice", questions=tuple(unique.values()), columns={}, left_out={})


def main() -> None:
    """Measures and prints."""
    quiet()
    need_lm_eval()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.models.huggingface import HFLM

    from forethought.measure.capability.model import ForethoughtLM
    from forethought.measure.capability.run import chosen_questions, score_piece
    from forethought.models.local import LocalModel
    from forethought.models.weights import embedded_model

    class Reference(HFLM):  # type: ignore[misc]
        """lm-eval's model as it is; it has no verdicts."""

        def refused(self, context: str) -> bool:
            return False

    own = ForethoughtLM(LocalModel.load("embedded", dtype="float32"))
    folder = str(embedded_model())
    theirs: Any = Reference(pretrained=folder, dtype="float32", device=str(own.device), batch_size=4)
    sets = [load_questions(file) for file in sys.argv[1:]] or [shipped_questions()]
    largest, count = 0.0, 0
    seconds = [0.0, 0.0]
    for prompt in ("plain", "chat"):
        for qset in sets:
            config = CapabilityConfig.model_validate({"prompt": prompt, "limit": max(1, N_ITEMS // (2 * len(sets)))})
            questions, _ = chosen_questions(qset, config)
            scored = []
            for place, lm in enumerate((own, theirs)):
                start = time.perf_counter()
                scored.append(score_piece(lm, qset.name, qset.kind, questions, [], config))
                seconds[place] += time.perf_counter() - start
            for one, two in zip(*scored, strict=True):
                pairs = list(zip(one.log_likelihoods, two.log_likelihoods, strict=True))
                largest = max(largest, *(abs(a - b) for a, b in pairs))
                count += len(pairs)
    found = {"capability_loglik_diff": largest, "loglikelihoods": count, "speed_up": seconds[1] / seconds[0]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
