"""`python -m forethought.cli`."""

from forethought.cli.app import main

main()
