"""Tests over generated input."""
