"""LightningModules: a base and one small file per objective."""
