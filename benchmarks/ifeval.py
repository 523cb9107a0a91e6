"""What a defended model still does: IFEval by its own checkers, and question files: `python benchmarks/ifeval.py`.

    python benchmarks/ifeval.py runs/quickstart REQUESTS... --results results/traffic.json
    python benchmarks/ifeval.py runs/quickstart --questions gsm8k=FILE --questions arc=FILE

Each request of somebody's (any file of harmless requests, else shipped ones of the test split) is put with one to
three instructions that lm-eval's IFEval words itself and can check, none in conflict with another. Base and defended
model answer the same prompts, the second behind its defences: refused is wrong, and counted by itself. With
`--published FILE` the prompts of a file in IFEval's own form are put instead, with `--questions NAME=FILE` questions:
options by their likelihoods, all else by what is written. The tasks' own files come from a hub, and no package has
them: they are to be brought.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from forethought.data.shipped import shipped_requests
from forethought.data.sources import SourceSpec, load_requests, sample
from forethought.evaluation.capability import asked_of, capability, question_sets
from forethought.manifest import input_hashes
from forethought.measure.capability.run import sentence_table
from forethought.metrics import Figure
from forethought.progress import Progress
from forethought.records import Request
from forethought.report.results import write_results

STEMS = {
    "capability_{}_base": "{}_base",
    "capability_{}_defended": "{}_defended",
    "capability_difference_{}": "{}_difference",
    "capability_refused_{}_defended": "{}_refused_defended",
    "capability_chance_{}": "{}_chance",
}
"""What `capability` calls a figure of a file, and what it is called here."""
MOST_TOLD = 3
"""Instructions of one prompt; IFEval's prompts have one to three."""


def told(request: Request, draw: random.Random) -> dict[str, Any]:
    """A request with instructions, as a row of IFEval."""
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_CONFLICTS, INSTRUCTION_DICT, conflict_make

    conflicts = conflict_make(INSTRUCTION_CONFLICTS)
    wanted, free = draw.randint(1, MOST_TOLD), sorted(INSTRUCTION_DICT)
    ids: list[str] = []
    said, arguments = [request.text], []
    while free and len(ids) < wanted:
        chosen = draw.choice(free)
        instruction = INSTRUCTION_DICT[chosen](chosen)
        needed = {"prompt_to_repeat": request.text} if chosen == "combination:repeat_prompt" else {}
        said.append(instruction.build_description(**needed))
        arguments.append(instruction.get_instruction_args() or {})
        ids.append(chosen)
        free = [one for one in free if one not in conflicts[chosen]]
    return {"prompt": " ".join(said), "instruction_id_list": ids, "kwargs": arguments}


def write_prompts(requests: list[Request], file: Path, seed: int) -> None:
    """The prompts of these requests in IFEval's form. Its own code draws from Python's global generator."""
    sentence_table()
    random.seed(seed)
    draw = random.Random(seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(told(one, draw))}\n" for one in requests), encoding="utf-8")


def main() -> None:
    """Measures, prints, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("requests", nargs="*", help="files of harmless requests")
    parser.add_argument("--published", type=Path, help="a file in IFEval's form, in place of requests")
    parser.add_argument("--questions", action="append", metavar="NAME=FILE", help="in place of IFEval")
    parser.add_argument("--limit", type=int, default=120)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/ifeval"))
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    if options.questions:
        asked = dict(one.split("=", 1) for one in options.questions)
    else:
        asked = {"ifeval": str(options.published or _prompts(options))}
    figures: list[Figure] = []
    inputs: dict[str, str] = {}
    for name, file in asked.items():
        [qset] = question_sets([file], None, Progress())
        config = asked_of(qset, options.limit).model_copy(
            update={"max_tokens": options.max_tokens, "seed": options.seed}
        )
        run = capability(options.model, file, config, batch_size=32, out=options.folder / f"{name}.json")
        names = {old.format(qset.name): new.format(name) for old, new in STEMS.items()}
        figures += [one.named(names[one.name]) for one in run.figures if one.name in names]
        inputs |= input_hashes([file])
    for figure in figures:
        print(f"{figure.name} {figure.value:.3f} ({figure.low} to {figure.high}), n {figure.n}")
    if options.results is not None:
        write_results(options.results, [options.seed], inputs, figures, keep=True)


def _prompts(options: argparse.Namespace) -> Path:
    """The requests with instructions, as a file."""
    found = [one for source in options.requests for one in load_requests(SourceSpec(path=source), False)]
    requests = [one for one in found if one.harmful is False] or shipped_requests("ordinary", "test")
    file: Path = options.folder / "prompts.jsonl"
    write_prompts(sample(requests, options.limit, options.seed), file, options.seed)
    return file


if __name__ == "__main__":
    main()
