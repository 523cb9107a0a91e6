"""An attack of your own, in one file. Usage: python examples/own_attack.py MODEL OUT"""

import sys
from pathlib import Path

import forethought as ft
from forethought.attacks.base import Attack, by_rule

backwards = by_rule(lambda text, rng, options: text[::-1])
ATTACKS = (Attack(name="backwards", title="Backwards", paper="", kind="encoding", transform=backwards),)

if __name__ == "__main__":
    run = ft.attack(sys.argv[1], ft.AttackSettings(attacks=(__file__,), n=4), out=Path(sys.argv[2]))
    print({figure.name: round(figure.value, 2) for figure in run.figures if figure.name.startswith("asr_")})
