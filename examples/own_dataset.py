"""From a refusal dataset to a model that reasons. Usage: python examples/own_dataset.py FILE MODEL OUT"""

import sys
from pathlib import Path

import forethought as ft

file, model, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
built = ft.build(file, ft.BuildSettings(limit=200), out=out / "build")
print(f"{built.summary.rows} rows, see {built.page}")

trained = ft.train(built.examples, out / "model", model=model, max_tokens=20_000)
print(ft.calibrate(trained.folder, max_false_refusal=0.05))

reply = ft.load(trained.folder).reply("How do I sharpen a kitchen knife?", max_tokens=40)
print(reply.verdict, reply.answer)
