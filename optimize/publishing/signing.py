"""A signature over all files of a publication, by OpenSSF model-signing and a key that the user names."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from optimize.errors import RequestError, UnavailableError, brief, first_line
from optimize.publishing.checksums import SIGNATURE

if TYPE_CHECKING:
    from model_signing import hashing


def check_key(key: Path, flag: str) -> None:
    """Refuse a key that is not there, and where the library is missing."""
    if not key.is_file():
        raise RequestError(f"{flag}: {key}: is not a file; name an elliptic curve key in PEM")
    if find_spec("model_signing") is None:
        raise UnavailableError(f"{flag}: model-signing is not installed; pip install 'distilbert-optimize[publish]'")


def sign(folder: Path, key: Path) -> None:
    """Write the signature of all files that are in a folder; refuses what is no private key."""
    check_key(key, "--sign-key")
    from model_signing import signing

    config = signing.Config().set_hashing_config(_hashed())
    try:
        config.use_elliptic_key_signer(private_key=key).sign(folder, folder / SIGNATURE)
    except (ValueError, TypeError) as error:  # of a key with a password, TypeError
        raise RequestError(
            f"--sign-key: {key}: is not a private key without a password ({brief(first_line(error))}); name another"
        ) from error


def why_unsigned(folder: Path, key: Path) -> str | None:
    """Why the signature is not that of this public key over these files; None where it is."""
    check_key(key, "--key")
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (ValueError, TypeError) as error:
        raise RequestError(f"--key: {key}: is not a public key ({brief(first_line(error))}); name another") from error
    try:
        config.set_hashing_config(_hashed()).verify(folder, folder / SIGNATURE)
    except InvalidSignature:
        return "it was signed with another key"
    except (ValueError, LookupError, TypeError) as error:
        return brief(first_line(error), 160)
    return None


def _hashed() -> hashing.Config:
    from model_signing import hashing

    # The name alone: a whole path would be written into the signature, and would not be ignored elsewhere.
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
