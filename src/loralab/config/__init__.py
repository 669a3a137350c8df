"""Typed configuration: schema, loading and validation."""
