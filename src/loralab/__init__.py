"""loralab: a research framework for fine-tuning language models with LoRA and QLoRA."""

__version__ = "0.1.0"
