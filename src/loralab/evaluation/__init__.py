"""Perplexity, generation, comparison and the report."""
