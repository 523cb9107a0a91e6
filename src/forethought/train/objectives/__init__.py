"""What a training step minimises: one file an objective."""
