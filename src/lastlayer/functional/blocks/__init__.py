"""Random blocks of feature maps: where they lie, how they are drawn, what replaces them."""

from lastlayer.functional.blocks.disout import (
    check_next_weight,
    disout,
    drop_block,
    next_layer_scale,
)
from lastlayer.functional.blocks.grid import (
    BlockGrid,
    block_grid,
    check_block_size,
    cover_probability,
    seed_rate,
)
from lastlayer.functional.blocks.released import disout_released
from lastlayer.functional.blocks.replace import SAMPLERS, replace_blocks

__all__ = [
    "SAMPLERS",
    "BlockGrid",
    "block_grid",
    "check_block_size",
    "check_next_weight",
    "cover_probability",
    "disout",
    "disout_released",
    "drop_block",
    "next_layer_scale",
    "replace_blocks",
    "seed_rate",
]
