"""What the weights of a checkpoint are called, held against what transformers calls those of its class.

Training writes more than a model: PyTorch's wrappers put words before every name, and a head of another training stays
beside the one that is used. A wrapper's words are dropped where all names begin with them. What the class that
the config names has no use for is left out and listed; where the config names another class, nobody knows what these
weights did to the answers, so they are refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from optimize.checkpoint import Config
from optimize.errors import SourceError, brief
from optimize.heads import HEADS
from optimize.interfaces import Head

WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What comes before all names: of DataParallel and DistributedDataParallel, of torch.compile, of Lightning modules."""
BODY = "distilbert."
"""What the names of the weights begin with beneath a head."""
ENCODER = ("embeddings.", "transformer.")
BUFFERS = ("embeddings.position_ids",)
"""Numbers that old versions of transformers saved along, and that are the same in every model."""
SAVE = "save the model again with transformers' save_pretrained"
MOST_LISTED = 4


def wrapping(names: Collection[str], *, where: str) -> str:
    """What training's wrappers put before all of these names, such as 'module._orig_mod.'; '' where they put nothing.

    Raises SourceError where some names have it and others do not: they belong to more than one model.
    """
    found = ""
    while wrapper := next((each for each in WRAPPERS if any(name.startswith(found + each) for name in names)), ""):
        found += wrapper
        if bare := sorted(name for name in names if not name.startswith(found)):
            raise SourceError(f"{where}: some weights are below '{found}', and {listed(bare)} not; {SAVE}")
    return found


def check_head(where: str, head: Head, names: Collection[str], config: Config) -> None:
    """Refuse weights without the head's own, or with others of which the config does not say that they are unused."""
    spare = left_over(head, names)
    for name in head.weights:
        if name not in names:
            raise _headless(where, head, name, _unknown(spare))
    # A head without weights of its own, such as feature extraction, is part of every checkpoint.
    if not head.weights or head.architecture in classes_of(config):
        return
    if others := [name for name in spare if name.removeprefix(BODY) not in BUFFERS]:
        raise SourceError(
            f"{where}: holds another head than '{head.name}' ({listed(others)}); leave out --head, or name "
            f"{head.architecture} in its config's architectures"
        )


def _headless(where: str, head: Head, missing: str, unknown: Collection[str]) -> SourceError:
    what = f"{where}: no weights for head '{head.name}' ({missing} is missing"
    if unknown:
        return SourceError(f"{what}; {head.architecture} has no {listed(unknown)}); {SAVE}")
    return SourceError(f"{what}); fine-tune it, or give another --head")


def left_over(head: Head, names: Iterable[str]) -> list[str]:
    """The names of which the head's class has no use, sorted; what the encoder has too much is not among them."""
    own = _modules(head)
    found = []
    for name in names:
        inner = name.removeprefix(BODY)
        if inner in BUFFERS or not (inner.startswith(ENCODER) or name.split(".")[0] in own):
            found.append(name)
    return sorted(found)


def surplus_in_encoder(unexpected: Iterable[str]) -> list[str]:
    """Of the names that transformers had no place for, sorted, those that would have changed what the encoder does."""
    plain = sorted(name.removeprefix(BODY) for name in unexpected)
    return [name for name in plain if name.startswith(ENCODER) and name not in BUFFERS]


def _unknown(names: Iterable[str]) -> list[str]:
    """Those that belong to no head at all."""
    known = {module for head in HEADS.values() for module in _modules(head)}
    return [name for name in names if name.removeprefix(BODY) not in BUFFERS and name.split(".")[0] not in known]


def _modules(head: Head) -> set[str]:
    """The first parts of the names of a head's weights."""
    return {name.split(".")[0] for name in head.weights}


def classes_of(config: Config) -> list[str]:
    """The class names in a config's `architectures`; a config is data from elsewhere: some name a single class."""
    given = config.get("architectures") or []
    return list(map(str, given if isinstance(given, list) else [given]))


def listed(names: Collection[str]) -> str:
    """Some names for a message, and how many more there are."""
    shown = ", ".join(brief(name) for name in list(names)[:MOST_LISTED])
    return f"{shown} and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else shown
