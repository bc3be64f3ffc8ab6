"""Other people's clients against a real node in a process of its own.

The Python ones come with the development environment; `packages.py` installs those of npm, once. Between client and
node stands `recorder.py`, which passes everything on as it is; `execution_apis.py` holds what it saw to Ethereum's
published schemas.
"""
