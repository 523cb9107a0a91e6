"""Judges of answers: one file a judge, or a family of them; every file's `JUDGES` is in the catalogue."""

DEFAULT_JUDGE = "rules"
"""Who tells refusals wherever no judge is named: in run, attack, over-refusal, sweep, study and hardening alike."""
