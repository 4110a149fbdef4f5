"""Random blocks of feature maps: where they lie, how they are drawn, what replaces them."""

from lastlayer.functional.blocks.dense import cover_mask
from lastlayer.functional.blocks.grid import (
    BlockGrid,
    block_grid,
    check_block_size,
    cover_counts,
    cover_probability,
    published_seed_rate,
    seed_rate,
)
from lastlayer.functional.blocks.replace import SAMPLERS, replace_blocks
from lastlayer.functional.blocks.sparse import draw_places

__all__ = [
    "SAMPLERS",
    "BlockGrid",
    "block_grid",
    "check_block_size",
    "cover_counts",
    "cover_mask",
    "cover_probability",
    "draw_places",
    "published_seed_rate",
    "replace_blocks",
    "seed_rate",
]
