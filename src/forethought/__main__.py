"""`python -m forethought`."""

from forethought.cli.app import main

main()
