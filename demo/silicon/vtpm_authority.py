"""What a cloud does to the vTPM of a guest: it certifies a key of it, and leaves certificate and template in it.

The authority is made for the one TPM and forgotten. Its name says what it is, and no default policy knows it.

Source: TCG TPM 2.0 Library, Part 3 sections 31.3 (NV_DefineSpace) and 31.7 (NV_Write).
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from guest.machine.tpm import TPM, opened
from guest.machine.tpm_nv import TPM_RH_OWNER, TPMA_NV_AUTHREAD, TPMA_NV_OWNERREAD
from guest.machine.tpm_quote import attestation_key
from guest.machine.vtpm import CERTIFICATE, TEMPLATE
from strongroom.evidence.tpm import TPMPublic
from strongroom.verify.roots import SIMULATED_LABEL
from strongroom.verify.tpm import SigningKey, public_key

TPM_CC_NV_DEFINE_SPACE: Final = 0x12A
TPM_CC_NV_WRITE: Final = 0x137
TPMA_NV_OWNERWRITE: Final = 1 << 1
NAME: Final = f"{SIMULATED_LABEL} vTPM root"
_CHUNK: Final = 512  # bytes
_LIFE: Final = timedelta(days=3650)
_AIK: Final = x509.ObjectIdentifier("2.23.133.8.3")

# RSA-2048, PKCS #1 v1.5 with SHA-256; restricted: it signs nothing that did not originate in the TPM.
AK_TEMPLATE: Final = bytes.fromhex(
    "0001"  # type RSA
    "000b"  # names by SHA-256
    "00050072"  # fixedTPM fixedParent sensitiveDataOrigin userWithAuth restricted sign
    "0000"  # no policy
    "0010"  # no symmetric algorithm: it is no storage key
    "0014000b"  # RSASSA, SHA-256
    "0800"  # bits
    "00000000"  # exponent 65537
    "0000"  # unique: empty
)


def certify(path: Path) -> bytes:
    """The SHA-256 of the root under which the TPM at `path` now has a certified key."""
    with opened(path) as tpm:
        with attestation_key(tpm, AK_TEMPLATE) as key:
            public = public_key(TPMPublic.parse(key.public))
        leaf, root = _certificates(public)
        define(tpm, TEMPLATE, AK_TEMPLATE)
        define(tpm, CERTIFICATE, leaf + root)
    return sha256(root).digest()


def define(tpm: TPM, index: int, content: bytes) -> None:
    """Make an NV index that holds `content`, for its owner to read and anybody."""
    what = f"nv_define_space 0x{index:08x}"
    attributes = TPMA_NV_OWNERWRITE | TPMA_NV_OWNERREAD | TPMA_NV_AUTHREAD
    public = index.to_bytes(4, "big") + b"\0\x0b" + attributes.to_bytes(4, "big") + bytes(2)
    public += len(content).to_bytes(2, "big")
    parameters = bytes(2) + len(public).to_bytes(2, "big") + public
    owner = TPM_RH_OWNER.to_bytes(4, "big")
    tpm.authorised(TPM_CC_NV_DEFINE_SPACE, owner, parameters, what)
    for offset in range(0, len(content), _CHUNK):
        piece = content[offset : offset + _CHUNK]
        written = len(piece).to_bytes(2, "big") + piece + offset.to_bytes(2, "big")
        tpm.authorised(TPM_CC_NV_WRITE, owner + index.to_bytes(4, "big"), written, f"nv_write 0x{index:08x}")


def _certificates(public: SigningKey) -> tuple[bytes, bytes]:
    """The key's certificate and the root's, small enough for one NV index together."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    root = _builder(NAME, key.public_key(), is_ca=True).sign(key, SHA256())
    purpose = x509.ExtendedKeyUsage([_AIK])
    builder = _builder("a simulated vTPM", public, is_ca=False).add_extension(purpose, critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER), root.public_bytes(Encoding.DER)


def _builder(name: str, public: SigningKey, *, is_ca: bool) -> x509.CertificateBuilder:
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    usage = dict.fromkeys(
        "content_commitment key_encipherment data_encipherment key_agreement crl_sign encipher_only "
        "decipher_only".split(),
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _LIFE)
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not is_ca, key_cert_sign=is_ca, **usage), critical=True
        )
    )
