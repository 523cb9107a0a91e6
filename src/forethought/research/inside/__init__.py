"""A look inside a model that thinks: what its verdict rests on."""
