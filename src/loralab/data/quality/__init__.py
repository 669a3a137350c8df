"""Checks of single rows: turns, texts and languages."""
