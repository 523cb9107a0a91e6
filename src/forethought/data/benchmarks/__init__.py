"""Benchmarks of any layout as behaviours: what is put to a model, and what is known of it."""
