"""How a Hub fails to answer, whatever library asks it; beside Python's own ConnectionError and TimeoutError."""

from __future__ import annotations


class ProxyError(ConnectionError):
    """The proxy cannot be reached, is none, or lets nobody through."""


class CertificateError(ConnectionError):
    """A certificate is not trusted; its text is the environment variable that says where trusted ones are."""


class AddressError(ConnectionError):
    """The address is none that can be asked."""


class NonsenseError(ConnectionError):
    """What came is no answer."""
