"""A street of homes that live a June day in a minute or two: real load profiles through real signed transactions."""
