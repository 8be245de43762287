"""Nothing is sent anywhere: what libraries would report of their use is off before the first of them is imported.

ONNX Runtime queues events in a database in the user's cache and resolves an outside host; turned off after its import,
it has done so already. datasets counts what it reads, local files too; huggingface_hub, transformers and others tell
the Hub what called it; Ray tells its makers of each cluster. All of them read their environment, which the processes
that this one starts inherit.
OpenVINO and NNCF know no such variable; `optimize.runtimes.openvino` sees to them.
"""

from __future__ import annotations

import os
import sys

SWITCHES = {
    "DO_NOT_TRACK": "1",
    "DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Each says the strictest that it can, so a user's own setting can only ask for more reports, and is overruled."""
READ_AT_IMPORT = (
    ("datasets.config", "HF_UPDATE_DOWNLOAD_COUNTS", False),
    ("huggingface_hub.constants", "HF_HUB_DISABLE_TELEMETRY", True),
)
"""Where libraries keep what they read, for callers who import them before this package."""


def report_nothing() -> None:
    """Turn reports off in this process and in those that it starts; cheap, and harmless to call again."""
    os.environ.update(SWITCHES)
    for module, name, value in READ_AT_IMPORT:
        if module in sys.modules:
            setattr(sys.modules[module], name, value)
