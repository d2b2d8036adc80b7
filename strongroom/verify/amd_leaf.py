"""What an AMD leaf certificate says of one chip: product, patch levels, hardware id.

Extensions under 1.3.6.1.4.1.3704.1 (AMD 57230, "VCEK and KDS interface"). Values are strict DER, but for the
hardware id, which is raw in every certificate AMD issues today and an OCTET STRING in some.
"""

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey

from strongroom.errors import VerifyError

_ARC: Final = "1.3.6.1.4.1.3704.1"
_PRODUCT: Final = f"{_ARC}.2"
_HWID: Final = f"{_ARC}.4"
_CSP_ID: Final = f"{_ARC}.5"
_LEVELS: Final = {
    "bootloader": f"{_ARC}.3.1",
    "tee": f"{_ARC}.3.2",
    "snp": f"{_ARC}.3.3",
    "microcode": f"{_ARC}.3.8",
    "fmc": f"{_ARC}.3.9",
}
_UNUSED_LEVELS: Final = tuple(f"{_ARC}.3.{n}" for n in range(4, 8))
_INTEGER: Final = 0x02
_OCTET_STRING: Final = 0x04
_IA5_STRING: Final = 0x16


class Leaf:
    """A VCEK or VLEK certificate; every reading that fails is a VerifyError."""

    def __init__(self, certificate: x509.Certificate, what: str) -> None:
        self._what = what
        self._certificate = certificate
        self._values = {
            extension.oid.dotted_string: extension.value.value
            for extension in certificate.extensions
            if isinstance(extension.value, x509.UnrecognizedExtension)
        }

    @property
    def key(self) -> EllipticCurvePublicKey:
        key = self._certificate.public_key()
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
            raise VerifyError(f"{self._what}: key is not on P-384")
        return key

    @property
    def product(self) -> str:
        """ "Milan", "Genoa" or "Turin"; AMD writes "Milan-B0" for some steppings."""
        return self._text(_PRODUCT, "product name").partition("-")[0]

    @property
    def csp_id(self) -> str:
        """The cloud provider a VLEK was issued to."""
        return self._text(_CSP_ID, "csp id")

    def levels(self) -> dict[str, int]:
        """Patch levels by component. The four unused ones must be zero, as they are in the report."""
        if any(self._integer(oid) for oid in _UNUSED_LEVELS if oid in self._values):
            raise VerifyError(f"{self._what}: an unused patch level is set, want zero")
        return {name: self._integer(oid) for name, oid in _LEVELS.items() if oid in self._values}

    def hwid(self, size: int) -> bytes:
        """The chip's id, `size` bytes: 64, or 8 on Turin."""
        value = self._value(_HWID, "hardware id")
        if len(value) == size + 2 and value[:2] == bytes((_OCTET_STRING, size)):
            value = value[2:]
        if len(value) != size:
            raise VerifyError(f"{self._what}: hardware id is {len(value)} bytes, want {size}")
        return value

    def _value(self, oid: str, name: str) -> bytes:
        if oid not in self._values:
            raise VerifyError(f"{self._what}: no {name} extension ({oid})")
        return self._values[oid]

    def _text(self, oid: str, name: str) -> str:
        value = self._value(oid, name)
        if len(value) < 2 or value[0] != _IA5_STRING or value[1] != len(value) - 2 or value[1] > 0x7F:
            raise VerifyError(f"{self._what}: {name} is not an IA5String")
        if not (text := value[2:]).isascii() or not (name_text := text.decode("ascii")).isprintable():
            raise VerifyError(f"{self._what}: {name} is not plain text")
        return name_text

    def _integer(self, oid: str) -> int:
        value = self._value(oid, "patch level")
        # 0..255 in DER: one content byte, or two when the top bit would make it negative.
        number = int.from_bytes(value[2:], "big")
        want = (
            bytes((_INTEGER, 2, 0, number)) if 0x80 <= number <= 0xFF else bytes((_INTEGER, 1, number & 0x7F))
        )
        if value != want:
            raise VerifyError(f"{self._what}: patch level {oid} is {value.hex()}, want a DER integer 0..255")
        return number
