"""The console command `loralab`: what is no experiment."""

import logging

# bitsandbytes warns while it is imported, which the commands do before any of our code runs.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
