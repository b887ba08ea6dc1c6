"""Measurements that fill the catalogue of checkpoints; run from the repository, not installed."""
