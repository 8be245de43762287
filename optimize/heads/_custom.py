"""Heads of a user's own: a `Head` in a Python file of theirs, named as FILE:NAME.

To read such a file is to run it, so that is done where a command names it and nowhere else: a finished run is judged by
what its manifest says of the head, and a runtime's process needs no more than that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from optimize.errors import RequestError, brief, first_line, shown
from optimize.interfaces import Head
from optimize.request import HeadCode, user_path

FLAG = "--head"
SUFFIX = ".py"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""Of a head; folders are called by it."""
BROKEN = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError),
    *(OSError, RuntimeError, SyntaxError, TypeError, ValueError),
)
"""What a file raises that has a mistake in it."""


def is_custom(name: str) -> bool:
    """Whether a head is named by the file that holds it."""
    return f"{SUFFIX}:" in name or name.endswith(SUFFIX)


def load_head(reference: str, *, taken: Mapping[str, Head], digest: str | None = None) -> Head:
    """Run the file of FILE:NAME and return its head; `taken` are the names that it cannot have.

    With a `digest`, only the file of this SHA-256 is run. Raises RequestError.
    """
    name, _, attribute = reference.rpartition(":")
    if not name or not attribute.isidentifier():
        raise RequestError(f"{FLAG}: '{brief(reference)}' names no head in a file; write 'my_head.py:HEAD'")
    file = user_path(name, FLAG)
    try:
        source = file.read_bytes()
    except OSError as error:
        raise RequestError(f"{FLAG}: {name}: {error.strerror}; name the file that holds the head") from error
    found = hashlib.sha256(source).hexdigest()
    if digest is not None and found != digest:
        raise RequestError(f"{FLAG}: {name}: is not the file that the run was begun with; give that one")
    head = getattr(_module(file.resolve(), source, found), attribute, None)
    where = f"{FLAG}: {name}: {attribute}"
    if not isinstance(head, Head):
        raise RequestError(
            f"{where}: is {shown(head)} and no Head; name what the file makes of optimize.interfaces.Head"
        )
    if not NAME.fullmatch(head.name) or head.name in taken:
        raise RequestError(
            f"{where}: cannot be called '{brief(head.name)}'; give it a name of its own in small letters and dashes"
        )
    _check_class(head, where)
    code = HeadCode(
        file=name,
        attribute=attribute,
        digest=found,
        outputs=head.outputs,
        reads=head.reads,
        weights=head.weights,
        axes=head.axes,
        example=head.example,
    )
    return replace(head, code=code)


def _module(file: Path, source: bytes, digest: str) -> ModuleType:
    """What the file defines: run once in a process, from the bytes that the digest is of."""
    name = f"optimize_head_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None:
        raise RequestError(f"{FLAG}: {file}: is no Python file; name one that ends in {SUFFIX}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        exec(compile(source, str(file), "exec"), module.__dict__)
    except BROKEN as error:
        del sys.modules[name]
        raise RequestError(
            f"{FLAG}: {file}: cannot be run ({type(error).__name__}: {first_line(error)}); mend the file"
        ) from error
    return module


def _check_class(head: Head, where: str) -> None:
    """Refuse a class whose encoder no stage would find."""
    from transformers import DistilBertPreTrainedModel

    if isinstance(head.auto_class, type) and not issubclass(head.auto_class, DistilBertPreTrainedModel):
        raise RequestError(
            f"{where}: {head.auto_class.__name__} is no DistilBertPreTrainedModel; derive it from that, with the "
            "encoder as `self.distilbert`"
        )


def recorded(name: str, code: HeadCode) -> Head:
    """A head as a manifest has it: enough to open its models, and not to judge them."""
    refuse = partial(_refuse, code)
    return Head(
        name=name,
        auto_class="",
        outputs=code.outputs,
        reads=code.reads,
        rows_are="values",
        dataset=(),
        metric="",
        weights=code.weights,
        faults=refuse,
        encode=refuse,
        read=refuse,
        decide=refuse,
        score=refuse,
        constants=refuse,
        axes=code.axes,
        example=code.example,
        code=code,
    )


def _refuse(code: HeadCode, *_: Any) -> NoReturn:
    raise RequestError(f"the head of {code.reference} is needed; give its file with {FLAG}")
