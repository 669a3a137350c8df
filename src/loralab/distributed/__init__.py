"""Several processes that train one run: how they start, find each other, and what they exchange."""
