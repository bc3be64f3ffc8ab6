"""Makes a chain and says on standard output when the chain and each block are final: run under strace by the tests.

Usage: chain_program.py DIRECTORY BLOCKS synced|unsynced
"""

import os
import sys
from pathlib import Path
from typing import Any

import plyvel

from node import anchor, store
from node.exits import Failure
from tests.store_rows import commit_blocks, create_chain, open_chain

LevelDB = plyvel.DB


class UnsyncedDatabase:
    """The bug that the tests must find: batches are not synced."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._database = LevelDB(*arguments, **options)

    def write_batch(self, sync: bool = False) -> Any:
        return self._database.write_batch()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


def main(directory: Path, blocks: int, mode: str) -> int:
    # Small, so that a short run starts the anchor anew several times, and makes tables and compactions.
    anchor.ANCHOR_BYTES_MAX = 3_000  # type: ignore[misc]
    store.LEVELDB_OPTIONS["write_buffer_size"] = 64 * 1024
    if mode == "unsynced":
        plyvel.DB = UnsyncedDatabase
        os.fdatasync = lambda fd: None
    try:
        run(directory, blocks)
    except Failure as failure:
        say(f"failed {failure.exit_code} {failure}")
        return failure.exit_code
    return 0


def run(directory: Path, blocks: int) -> None:
    create_chain(directory)
    say("final 0")
    for _ in range(2):  # two starts
        chain = open_chain(directory)
        for _ in range(blocks // 2):
            commit_blocks(chain, 1)
            say(f"final {chain.head.height}")
        chain.close()


def say(words: str) -> None:
    """One write, so that it is one call in the trace."""
    os.write(1, words.encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
