"""Reading a certificate or a revocation list so that what is not understood is refused, and in one sentence."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning

from strongroom.errors import VerifyError

_UNREADABLE: Final = (  # what the library raises for bytes it cannot make sense of
    ValueError,
    TypeError,
    UserWarning,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@contextmanager
def strictly(what: str, thing: str, *, tolerated: str | None = None) -> Iterator[None]:
    """Everything the library stumbles over inside is a VerifyError, also what it would only warn about.

    `tolerated` begins the one warning that is no reason to refuse.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            # AMD gives every VCEK the serial number 0, which is no reason to refuse it.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            if tolerated is not None:
                warnings.filterwarnings("ignore", tolerated, UserWarning)
            yield
    except _UNREADABLE as error:
        raise VerifyError(f"{what}: not a {thing} we can read") from error


def check_whole_bytes(der: bytes, signature: bytes, what: str) -> None:
    """VerifyError for a second encoding of the same thing: a signature's bit string with a bit to spare.

    The library takes both for one certificate, and then a flipped bit goes unnoticed.
    """
    if not der.endswith(b"\0" + signature):
        raise VerifyError(f"{what}: signature has unused bits, want whole bytes")


def load(der: bytes, what: str) -> x509.Certificate:
    """The certificate, with every part we read later already parsed once."""
    with strictly(what, "certificate"):
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key()
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        check_whole_bytes(der, certificate.signature, what)
    return certificate
