"""Asks a defended model. Usage: python examples/ask.py runs/quickstart "How do I bake bread?" """

import sys

import forethought as ft

model = ft.load(sys.argv[1])
reply = model.reply(sys.argv[2], max_tokens=60)

print("verdict:", reply.verdict, "probability of refusing:", reply.probability, "refuses from:", reply.threshold)
print("intent:", reply.intent)
for rule in reply.rules:
    print("rule:", rule.id, rule.title)
print("answer:", reply.answer)
print("tokens:", reply.tokens.thought, "of thought,", reply.tokens.answer, "of answer")
