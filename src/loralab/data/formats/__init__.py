"""Readers that turn raw rows of each known form into conversations."""
