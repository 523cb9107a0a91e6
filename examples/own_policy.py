"""A training set under a policy of your own. Usage: python examples/own_policy.py POLICY FILE OUT"""

import sys
from pathlib import Path

import forethought as ft

policy, requests, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
for rule in ft.load_policy(policy).rules:
    print(rule.id, rule.title)

built = ft.build(requests, ft.BuildSettings(policy=policy, limit=100), out=out)
for count in built.summary.rules:
    print(f"{count.rows} rows break {count.label}")
