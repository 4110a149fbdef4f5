"""Long-tailed data: classes of which there are few examples."""

from lastlayer.longtail.meta_sampler import MetaSampler
from lastlayer.longtail.virtual_step import row_losses, virtual_meta_loss

__all__ = ["MetaSampler", "row_losses", "virtual_meta_loss"]
