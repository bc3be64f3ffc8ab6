"""The `ctt` command line."""
