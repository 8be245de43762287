"""A run in short, as Markdown: verdict, limits, what got worse, the models, and how to ask for the same again.

It is made of the parts of the run's page, so both say the same. Nothing in it is of the data but names of classes.
"""

from __future__ import annotations

from optimize.compared import Regression
from optimize.manifest import Manifest
from optimize.report import page, regressions, tables
from optimize.report.markdown import code_block
from optimize.report.tables import markdown_table


def summary(manifest: Manifest, regression: Regression | None = None) -> str:
    """The run's heading with its limits, what got worse where that is given, its models, and its command."""
    models = markdown_table(tables.model_rows(manifest)) if manifest.measurements else ""
    words = page.command(manifest.request, chosen=bool(manifest.candidates))
    again = f"<details><summary>Reproduce</summary>\n\n{code_block(words)}\n\n</details>"
    # A level lower than on the run's own page, since it stands among what is not ours.
    return "\n\n".join(filter(None, (f"##{page.title(manifest, regression)}", worse(regression), models, again))) + "\n"


def worse(regression: Regression | None) -> str:
    """What got worse since the last accepted run; nothing where the run was held against none."""
    found = regressions.section(regression)
    return f"##{found}" if found else ""
