"""Loading, quantizing and adapting causal language models."""

import logging

# bitsandbytes warns of a kernel it can do without while it is imported, before any of our code runs.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
