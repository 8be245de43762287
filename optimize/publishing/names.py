"""What a publication has beside the files of its model, by name; who reads one needs nothing that makes them."""

from __future__ import annotations

from optimize import manifest
from optimize.publishing.checksums import UNLISTED
from optimize.publishing.provenance import BOM, STATEMENT
from optimize.report.pictures.draw import FILES

CARD_FILE = "README.md"
JUDGED = "MODEL.SHA256SUMS"
"""The files of the model as it was judged, where a layout arranged them otherwise."""
RESULTS = ".eval_results"
"""Where the Hub looks for scores."""
IMAGE = "docker"
"""What makes an image that serves the publication."""
OURS = (CARD_FILE, JUDGED, RESULTS, IMAGE, *UNLISTED, STATEMENT, BOM, manifest.FILE, manifest.CHECKPOINT, *FILES)
"""What a publication has beside the files of its model."""
