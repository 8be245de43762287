"""The one list of layouts: how a publication's files can be arranged, by the name that `--layout` takes."""

from __future__ import annotations

from optimize.errors import unknown_name
from optimize.publishing.layouts import docker, kserve, optimum, ovms, sagemaker, transformers_js, triton, vertex
from optimize.publishing.layouts.layout import Layout

LAYOUTS: dict[str, Layout] = {
    "optimum": optimum.LAYOUT,
    "transformers.js": transformers_js.LAYOUT,
    "triton": triton.LAYOUT,
    "ovms": ovms.LAYOUT,
    "kserve": kserve.LAYOUT,
    "sagemaker": sagemaker.LAYOUT,
    "vertex": vertex.LAYOUT,
    "docker": docker.LAYOUT,
}
DEFAULT = "optimum"


def find_layout(name: str) -> Layout:
    """The layout of this name; raises RequestError for others."""
    if name not in LAYOUTS:
        raise unknown_name("layout", name, LAYOUTS)
    return LAYOUTS[name]
