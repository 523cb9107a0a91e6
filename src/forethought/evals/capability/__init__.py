"""What a model can still do: question files as lm-eval tasks, for the base model and the defended one alike."""
