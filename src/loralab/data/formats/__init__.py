"""Readers that turn raw rows of each known form into records, and writers that turn them back."""
