"""Two models on the same requests, side by side. Usage: python examples/compare_models.py ONE OTHER OUT"""

import sys
from pathlib import Path

import forethought as ft

settings = ft.AttackSettings(attacks=("prefix_injection", "leetspeak"), n=8, max_answer_tokens=24)
found = ft.compare({"one": sys.argv[1], "other": sys.argv[2]}, settings, out=Path(sys.argv[3]))

for name in ("asr_direct", "asr_unseen", "refused_ordinary"):
    print(name, {system: found.figure(f"{name}_{system}").value for system in found.systems})
print("page:", found.page)
