"""Networks of torchvision, timm and transformers, and what is tried on each."""
