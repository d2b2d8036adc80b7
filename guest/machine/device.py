"""What a GPU or NVSwitch answered through a library of the driver, as evidence, and when it is none."""

from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates

from strongroom.errors import MachineError
from strongroom.evidence.gpu import GPUEvidence

NONCE_SIZE: Final = 32  # bytes
_NONCE_AT: Final = slice(4, 36)  # of a report: the request comes first, and its nonce after four bytes


def check_nonce(nonce: bytes, what: str) -> None:
    """MachineError unless a device can be asked over `nonce`; `what` names the device."""
    if len(nonce) != NONCE_SIZE:
        raise MachineError(f"{what}: nonce is {len(nonce)} bytes, want {NONCE_SIZE}")


def cut(buffer: bytes, size: int, what: str) -> bytes:
    """The first `size` bytes of a library's `buffer`; MachineError where it cannot hold as many, or has none."""
    if not 0 < size <= len(buffer):
        raise MachineError(f"{what}: {size} bytes, want 1..{len(buffer)}")
    return buffer[:size]


def answered(kind: str, report: bytes, pem: bytes, *, nonce: bytes, what: str) -> GPUEvidence:
    """The evidence in an answer to `nonce`; MachineError for an answer to another, or certificates that are none."""
    if report[_NONCE_AT] != nonce:
        raise MachineError(f"{what}: report answers another nonce than it was asked with")
    return GPUEvidence(kind=kind, certificates=_der(pem, what), report=report)


def _der(pem: bytes, what: str) -> bytes:
    """Leaf first, DER after DER. The C library may count the string's final zero."""
    try:
        chain = load_pem_x509_certificates(pem.rstrip(b"\0"))
    except ValueError as error:
        raise MachineError(f"{what}: certificates are no PEM chain") from error
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in chain)
