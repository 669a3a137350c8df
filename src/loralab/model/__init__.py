"""Loading, quantizing and adapting causal language models."""
