"""On-policy training: the model's own thoughts, what each is worth, and two ways to learn from them."""
