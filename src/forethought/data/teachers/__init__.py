"""Who writes the lessons: an LLM, the dataset itself, or rules (`forethought.data.teach`)."""
