"""Final blocks as requests name them: by height, by tag, by hash, by transaction."""

from collections import OrderedDict
from typing import Final, TypeVar

from ctt_state.block import FinalBlock
from rpc.chain import Chain
from rpc.errors import Refused
from rpc.params import BlockRef, Tag
from rpc.render import BlockView

VIEWS_CACHED_MAX: Final = 8  # each holds its block, up to some 10 MB
BLOOMS_CACHED_MAX: Final = 100_000  # 300 bytes each: nine hours of three blocks a second

T = TypeVar("T")


class Blocks:
    """The chain's blocks. Views of the newest used and blooms of many are kept; a final block never changes."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._views: OrderedDict[int, BlockView] = OrderedDict()
        self._blooms: OrderedDict[int, int] = OrderedDict()

    def view(self, final: FinalBlock) -> BlockView:
        height = final.block.header.height
        view = self._views.get(height)
        if view is None:
            view = BlockView(final, self.chain.parameters)
            _keep(self._views, height, view, VIEWS_CACHED_MAX)
        return view

    def at(self, height: int) -> BlockView | None:
        """None above the head. Raises: BlockPruned."""
        view = self._views.get(height)
        if view is not None:
            return view
        final = self.chain.block(height)
        return None if final is None else self.view(final)

    def bloom_at(self, height: int) -> int | None:
        """The bloom of this block if it has been worked out before."""
        return self._blooms.get(height)

    def remember_bloom(self, view: BlockView) -> None:
        _keep(self._blooms, view.height, view.bloom, BLOOMS_CACHED_MAX)

    def height_of(self, ref: BlockRef) -> int | None:
        """The height a request means; None for an unknown hash. It may be above the head."""
        if isinstance(ref, Tag):
            return self.chain.oldest_block() if ref is Tag.EARLIEST else self.chain.head.block.header.height
        return ref if isinstance(ref, int) else self.chain.height_of(ref)

    def find(self, ref: BlockRef) -> BlockView | None:
        """None above the head and for an unknown hash. Raises: BlockPruned."""
        height = self.height_of(ref)
        return None if height is None else self.at(height)

    def known_height(self, ref: BlockRef) -> int:
        """The height of a block that must be there. Raises: Refused."""
        height, head = self.height_of(ref), self.chain.head.block.header.height
        if height is None:
            raise Refused("header not found: no block has this hash")
        if height > head:
            raise Refused(f"header not found: block {height} is above the head {head}")
        return height


def _keep(cache: OrderedDict[int, T], height: int, value: T, maximum: int) -> None:
    cache[height] = value
    while len(cache) > maximum:
        cache.popitem(last=False)
