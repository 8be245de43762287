"""Where models come from: a Hub id, a folder, or the embedded demo.

`acquire_checkpoint` loads what was found (see `finding`) through transformers, raises it to FP32, and seals it as the
torch artifact that every number is compared with.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from pathlib import Path

from optimize import cache
from optimize.checkpoint import CONFIG_FILE
from optimize.demo.generate import train_checkpoint
from optimize.errors import brief
from optimize.files.copies import Files, digests_of, private_copy
from optimize.hub.repository import download, inspect_repository
from optimize.interfaces import Facts, Head, Progress
from optimize.machine.environment import version
from optimize.source.adapter import MERGER, SETTINGS, adapter_file
from optimize.source.adapter import WEIGHTS as ADAPTER_WEIGHTS
from optimize.source.card import FILE as CARD
from optimize.source.finding import Found, check_folders, place_of, repository
from optimize.source.formats import format_of
from optimize.source.load import raise_to_fp32
from optimize.source.sentences import module_files, write_encoder
from optimize.source.weights import weight_files, weight_format

ADAPTER = "adapter"
"""Where an adapter's files lie in a copy of its base."""
COMPANIONS = (CONFIG_FILE, "tokenizer*.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json")
NEEDS = ("transformers", "torch", "safetensors")


def acquire_checkpoint(found: Found, head: Head, *, root: Path, seed: int, progress: Progress) -> cache.Entry:
    """The checkpoint as a sealed FP32 torch artifact; facts hold how it was stored.

    `root` is the cache's folder; `seed` matters to the demo alone.
    """
    if found.kind == "demo":
        material: dict[str, object] = {
            "source": "demo",
            "head": head.key,
            "seed": seed,
            "versions": {"torch": version("torch")},
        }
        return cache.fetch(
            root, material, "torch", lambda out: _train_demo(head, out, seed, progress), progress=progress
        )
    folder = found.whole.folder or _download(found.whole, progress)
    adapter = None if found.base is None else found.folder or _download(found, progress)
    check_folders(found, head, folder, adapter)
    needs = (*NEEDS, *weight_format(folder / found.transformer).needs, *([MERGER] if adapter else []))
    files = _files_of(folder, adapter, found)
    digests = digests_of(files)
    # The name that the checkpoint was asked for by is not in here: what it holds decides.
    material = {
        "source": found.kind,
        "head": head.key,
        "files": digests,
        "versions": {name: version(name) for name in needs},
    }

    def build(out: Path) -> Facts:
        with private_copy(files, digests, root) as copy:
            facts = raise_to_fp32(
                copy / found.transformer,
                head,
                out,
                where=found.id,
                adapter=copy / ADAPTER if adapter else None,
                lower_case=found.encoder is not None and found.encoder.lower_case,
            )
            if found.encoder is not None:
                write_encoder(copy, out, where=found.id)
            return facts

    entry = cache.fetch(root, material, "torch", build, progress=progress)
    for remark in remarks(entry.facts):
        progress.say(f"{found.id}: {remark}")
    return entry


def remarks(facts: Facts) -> list[str]:
    """What is worth a line about how a checkpoint was read, in words."""
    found = []
    if facts["wrapper"]:
        found.append(f"all names of weights began with '{facts['wrapper']}', which is dropped")
    if facts["left_out"]:
        found.append(f"weights that its class has no use for are left out: {brief(facts['left_out'], 200)}")
    return found


def _files_of(folder: Path, adapter: Path | None, found: Found) -> Files:
    """The files that shape what becomes of a checkpoint, by their places; an adapter's in a folder of their own."""
    inner = folder / found.transformer
    paths = [*weight_files(inner), *inner.glob(weight_format(inner).index), *_companions(inner)]
    paths += [folder / name for name in module_files(found.encoder)] if found.encoder else []
    files = {path.relative_to(folder).as_posix(): path for path in paths if path.exists()}
    if adapter is not None:
        for path in (adapter / SETTINGS, adapter_file(adapter), *_companions(adapter)):
            files[f"{ADAPTER}/{path.name}"] = path
    return dict(sorted(files.items()))


def _companions(folder: Path) -> Iterator[Path]:
    for pattern in COMPANIONS:
        yield from folder.glob(pattern)


def _train_demo(head: Head, out: Path, seed: int, progress: Progress) -> Facts:
    train_checkpoint(
        head.name, out, seed=seed, progress=lambda done, total: progress.step("train the demo", done, total)
    )
    return {"stored_as": "float32"}


def _download(found: Found, progress: Progress) -> Path:
    progress.say(f"downloading {found.id} at {found.revision}")
    asked = repository(found.id, found.revision)
    _, all_names = inspect_repository(asked, progress)
    place = place_of(found.transformer)
    names = {name.removeprefix(place) for name in all_names if name.startswith(place)}
    patterns = [*COMPANIONS]
    if found.adapter is not None:
        patterns += [SETTINGS, *ADAPTER_WEIGHTS]
    else:
        kind = format_of(names, where=found.id)
        patterns += [kind.files, kind.index]
    # Its card says under which licence it is; nothing else comes of it.
    patterns.append(CARD)
    # What lies in folders of its own, such as "onnx/", is another model.
    wanted = {
        place + name for name in names if "/" not in name and any(fnmatch.fnmatch(name, each) for each in patterns)
    }
    return download(asked, wanted | (all_names & {*module_files(found.encoder)} if found.encoder else set()))
