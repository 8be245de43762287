"""What to do about what the system refuses: one table, by the number of the error."""

from __future__ import annotations

import errno
import os
import re
import shutil

NETWORK = "look at the network, or the disk at its other end, then run again"
REMEDIES = {
    "ENOSPC EDQUOT": "free some space there, or name another folder",
    "EFBIG": "raise the limit on the size of files (`ulimit -f`), or name a folder on a disk that takes larger ones",
    "EACCES EPERM": "mend its permissions, or name another path",
    "EROFS": "that disk may not be written to; name another folder",
    "ENOTDIR": "a part of that path is a file; name another path, or move the file away",
    "EISDIR": "a folder lies where a file should; name another path, or move the folder away",
    "EEXIST ENOTEMPTY": "move away what is there, or name another path",
    "ENAMETOOLONG": "give it a shorter name",
    "ENOENT": "something removed it meanwhile; run again, and what the cache lacks is built anew",
    "ELOOP": "its links lead in a circle; mend them, or name another path",
    "EINVAL": "the system takes no such path there; name another",
    "EXDEV": "two disks meet in that path; name a folder that lies on one",
    "EBUSY ETXTBSY": "something else uses it, or a disk is mounted there; end that, or name another path",
    "EMFILE ENFILE": "raise the limit on open files (`ulimit -n`), or end other programs",
    "EAGAIN": "raise the limit on processes (`ulimit -u`), or end other programs",
    "ENOMEM": "free memory, or ask for fewer threads and smaller shapes",
    "EIO": "the disk fails, says the system; look at its log, and name a folder on another disk",
    "ENOTSUP EOPNOTSUPP ENOSYS ENOLCK": "that disk cannot do what is needed; name a folder on another",
    "ENODEV ENXIO": "no file lies there; name another path",
    "EPIPE ECONNRESET": "a process of this run ended early; free memory, then run again",
    "ESTALE ETIMEDOUT EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH ECONNREFUSED ECONNABORTED EREMOTEIO": NETWORK,
}
OTHERWISE = "look at that path and its disk, then run again"
BY_NUMBER = {
    getattr(errno, name): remedy for names, remedy in REMEDIES.items() for name in names.split() if hasattr(errno, name)
}


def explain(error: OSError) -> str | None:
    """A failure of the system in our words, *where: what; what to do*; None where the system said nothing.

    Libraries raise OSError for what no disk has to do with: such an error has no number.
    """
    error = _copying(error)
    if error.errno is None:
        return None
    paths = [_word(each) for each in (error.filename, error.filename2) if each is not None]
    where = f"{' -> '.join(paths)}: " if paths else ""
    what = error.strerror or os.strerror(error.errno)
    return f"{where}{what}; {BY_NUMBER.get(error.errno, OTHERWISE)}"


def _copying(error: OSError) -> OSError:
    """The first failure of a folder's copy, which shutil hands on as a list of sources, destinations and words."""
    failures = error.args[0] if isinstance(error, shutil.Error) and error.args else None
    if not isinstance(failures, list) or not failures:
        return error
    _, destination, words = failures[0]
    found = re.search(r"\[Errno (\d+)\]", str(words))
    if found is None:
        return error
    return OSError(int(found[1]), os.strerror(int(found[1])), str(destination))


def _word(path: object) -> str:
    return os.fsdecode(path) if isinstance(path, str | bytes) else str(path)
