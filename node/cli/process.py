"""What a node asks of its process before it opens anything."""

import resource
from typing import Final

from node.exits import Exit, Failure

OPEN_FILES_MIN: Final = 1_024


def prepare_process() -> None:
    """No core dumps, which would hold the consensus key; as many open files as the system grants.

    Raises: Failure (78) when those are too few for the database and the clients.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and most < OPEN_FILES_MIN:
        raise Failure(
            Exit.CONFIGURATION,
            f"open files {most}; need at least {OPEN_FILES_MIN}, better 4096 (ulimit -n 4096)",
        )
