"""Run by an interpreter that has this directory on its path, before all else: it tells the keys of its TLS sessions.

They go to the file that SSLKEYLOGFILE names, as browsers write it. `ssl` does that by itself for default contexts only.
"""

import os
import ssl
from typing import Any

_new = ssl.SSLContext.__new__


def _new_telling(cls: type[ssl.SSLContext], *arguments: Any, **options: Any) -> ssl.SSLContext:
    context = _new(cls, *arguments, **options)
    context.keylog_filename = os.environ["SSLKEYLOGFILE"]
    return context


ssl.SSLContext.__new__ = _new_telling  # type: ignore[method-assign,assignment]
