"""Benchmarks: one command each, JSON on standard output."""
