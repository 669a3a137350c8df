"""Adapter methods: one builder of a PEFT config for each choice of the `lora` group."""
