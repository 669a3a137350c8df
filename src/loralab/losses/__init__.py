"""Pure tensor functions, one file per objective."""
