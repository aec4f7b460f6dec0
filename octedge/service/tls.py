"""TLS for receiving and sending, by Python's own library and its defaults (PS3.15 annex B profiles rest on the same)."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from octedge.errors import UsageError
from octedge.service.settings import Tls


def server_tls(tls: Tls | None) -> ssl.SSLContext | None:
    """For those who send to us; with a CA they must show a certificate of it. None without TLS.

    Raises `UsageError` if a file cannot be used.
    """
    if tls is None:
        return None
    with _files():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.ca:
            context.load_verify_locations(tls.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(tls: Tls | None) -> ssl.SSLContext | None:
    """For those we send to: their certificate must be of the CA (none: of one the system trusts) and bear their host's name.

    Raises `UsageError` if a file cannot be used.
    """
    if tls is None:
        return None
    with _files():
        context = ssl.create_default_context(cafile=tls.ca or None)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key)
    return context


@contextmanager
def _files() -> Iterator[None]:
    try:
        yield
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or type(error).__name__
        raise UsageError(f"tls: certificate, key or ca cannot be used ({why}); they are PEM files, the key without password") from error
