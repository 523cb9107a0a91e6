"""`forethought sweep`: many defences on the same data, budget and attacks, resumable, in one table."""
