"""The chain in SQL: follows final blocks, and can be killed at any moment."""
