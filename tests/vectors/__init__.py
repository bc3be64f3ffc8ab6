"""Golden bytes, hashes and roots, as JSON that another implementation can read. `regenerate.py` tells how they come."""
