"""Other people's clients against a real node in a process of its own."""
