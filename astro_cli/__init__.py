"""astro: post-training of distilled autoregressive video models.

Importing it only makes torchvision importable beside a CPU build of torch.
"""

from astro_cli.compat import torchvision_ops

torchvision_ops.install()
