"""What each command does. Heavy libraries are imported where they are used, so that --help stays quick."""
