"""A staged optimization and quantization pipeline for DistilBERT."""

import logging

from optimize.checkpoint import load_model

__all__ = ["load_model"]

__version__ = "0.1.0"

# transformers imports torchao where it is installed, which complains of GPU libraries and of torch's own renamings.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
