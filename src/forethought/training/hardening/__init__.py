"""Hardening: attack the trained model, teach what broke it and its harmless twins, train again."""
