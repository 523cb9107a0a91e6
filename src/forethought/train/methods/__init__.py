"""Defences that are trained: each says which rows it makes of the same data, and which objective it trains them by."""
