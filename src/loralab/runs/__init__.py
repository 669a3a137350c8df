"""The run folder: its id, files and manifest."""
