"""What must not be published by accident: credentials, told by the forms that their issuers give them.

Only forms that no text and no vocabulary has by chance: a word piece such as `hf_` or `sk-` alone is none.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from optimize.artifact import sealed_files
from optimize.errors import RequestError

FORMS = {
    "a private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a Hugging Face token": rb"hf_[A-Za-z0-9]{34}",
    "a GitHub token": rb"gh[pousr]_[A-Za-z0-9]{36}",
    "a fine-grained GitHub token": rb"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
    "a GitLab token": rb"glpat-[A-Za-z0-9_-]{20}",
    "an AWS access key": rb"A[KS]IA[0-9A-Z]{16}(?![0-9A-Za-z])",
    "a Google API key": rb"AIza[A-Za-z0-9_-]{35}",
    "a Slack token": rb"xox[baprs]-[0-9]{10,}-[A-Za-z0-9-]{20,}",
    "an API key": rb"sk-(?<![A-Za-z0-9]sk-)(?:ant-|proj-)?[A-Za-z0-9_-]{40}",
    "an npm token": rb"npm_[A-Za-z0-9]{36}",
    "a JSON Web Token": rb"eyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    "a password in an address": rb"://[A-Za-z0-9._~%+-]{1,64}:[^\s/@:\"'<>{}$]{3,128}@[A-Za-z0-9]",
}


def require_no_secrets(folder: Path) -> None:
    """Refuse a publication with a credential in any of its files; the refusal does not repeat it."""
    for path in sealed_files(folder):
        if not path.stat().st_size:
            continue
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for what, form in FORMS.items():
                if found := re.search(form, content):
                    raise RequestError(
                        f"{path.relative_to(folder)}: has what looks like {what} at byte {found.start()}; "
                        "take it out of what the run was made of, and run it again"
                    )
