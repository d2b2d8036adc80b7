"""A reference integrity manifest (RIM): what NVIDIA says each measurement of a driver or VBIOS must be.

A SWID tag (ISO 19770-2) in XML with one enveloped XML signature. The whole is held to the one shape NVIDIA
writes, and every part is read from the tree whose canonical form is signed: there is no other place to read.

    SoftwareIdentity@name  Entity  Meta@colloquialVersion@product  Payload/Resource*  Signature

No DTD, entity, comment, CDATA or processing instruction passes, so Canonical XML 1.0 (which libxml2 offers) and
1.1 (which the signature names) give the same bytes: they differ in xml:id and xml:base alone, and no attribute
of the xml namespace passes either.
"""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self

from lxml import etree

from strongroom.errors import FormatError

MAX_BYTES: Final = 256 * 1024
MAX_INDEX: Final = 254
MAX_ALTERNATIVES: Final = 64
MAX_CERTIFICATES: Final = 8
DIGEST_SIZE: Final = 48
SIGNATURE_SIZE: Final = 96  # r then s, big-endian

_SUBJECT: Final = "rim"
_SWID: Final = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_HASH: Final = "{http://www.w3.org/2001/04/xmlenc#sha384}"
_DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"
_XML: Final = "{http://www.w3.org/XML/1998/namespace}"
_C14N11: Final = "http://www.w3.org/2006/12/xml-c14n11"
_ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_ECDSA_SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#sha384"
_DECLARATION: Final = b"<?xml "
_ACTIVE: Final = {"True": True, "False": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class RIM:
    """A manifest as it reads. Nothing in it is believed before its signature and signer are verified."""

    name: str
    product: str  # the chip: "GH100", "LS10"
    version: str  # of the driver or the VBIOS
    golden: Mapping[int, tuple[bytes, ...]]  # active index, from 0, to the digests it may have
    certificates: tuple[bytes, ...]  # DER, the signer's first
    content: bytes  # canonical form of all but the signature: what `digest` is over
    digest: bytes
    signed_info: bytes  # canonical form of what `signature` is over; it holds `digest`
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read one manifest, or raise FormatError naming the first broken rule."""
        root = _tree(data)
        if root.tag != f"{_SWID}SoftwareIdentity":
            raise FormatError(f"{_SUBJECT}: the root is {_shown(root.tag)}, want SoftwareIdentity")
        _, meta, payload, signature = _children(
            root, f"{_SWID}Entity", f"{_SWID}Meta", f"{_SWID}Payload", f"{_DS}Signature"
        )
        if signature.tail:
            raise FormatError(f"{_SUBJECT}: text behind the signature, want none")
        digest, signed_info, value, certificates = _signature(signature)
        root.remove(signature)
        return cls(
            name=_attribute(root, "name"),
            product=_attribute(meta, "product"),
            version=_attribute(meta, "colloquialVersion"),
            golden=_golden(payload),
            certificates=certificates,
            content=_canonical(root),
            digest=digest,
            signed_info=signed_info,
            signature=value,
        )


def _tree(data: bytes) -> Any:
    if not 0 < len(data) <= MAX_BYTES:
        raise FormatError(f"{_SUBJECT}: {len(data)} bytes, want 1..{MAX_BYTES}")
    body = data[data.find(b"?>") + 2 :] if data.startswith(_DECLARATION) and b"?>" in data else data
    if b"<!" in body or b"<?" in body or b"\0" in data:
        raise FormatError(f"{_SUBJECT}: a DTD, comment, CDATA or processing instruction, want none")
    # The encoding is fixed here: with a declared one, "<!" could be spelled in other bytes.
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        recover=False,
        remove_blank_text=False,
        collect_ids=False,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise FormatError(f"{_SUBJECT}: not well-formed XML") from error
    if root.getroottree().docinfo.doctype:
        raise FormatError(f"{_SUBJECT}: has a document type, want none")
    for element in root.iter():
        if not isinstance(element.tag, str) or any(name.startswith(_XML) for name in element.attrib):
            raise FormatError(f"{_SUBJECT}: something else than elements and plain attributes")
        if (element.tail or "").strip() or (len(element) and (element.text or "").strip()):
            raise FormatError(f"{_SUBJECT}: text between elements")
    return root


def _signature(signature: Any) -> tuple[bytes, bytes, bytes, tuple[bytes, ...]]:
    """Digest, canonical SignedInfo, signature value, certificates."""
    info, value, key = _children(signature, f"{_DS}SignedInfo", f"{_DS}SignatureValue", f"{_DS}KeyInfo")
    method, algorithm, reference = _children(
        info, f"{_DS}CanonicalizationMethod", f"{_DS}SignatureMethod", f"{_DS}Reference"
    )
    transforms, digest_method, digest = _children(
        reference, f"{_DS}Transforms", f"{_DS}DigestMethod", f"{_DS}DigestValue"
    )
    enveloped, canonical = _children(transforms, f"{_DS}Transform", f"{_DS}Transform")
    for element, want in (
        (method, _C14N11),
        (algorithm, _ECDSA_SHA384),
        (enveloped, _ENVELOPED),
        (canonical, _C14N11),
        (digest_method, _SHA384),
    ):
        if dict(element.attrib) != {"Algorithm": want} or len(element):
            raise FormatError(f"{_SUBJECT}: {_shown(element.tag)} is not {want}")
    if dict(reference.attrib) != {"URI": ""}:
        raise FormatError(f"{_SUBJECT}: the signature refers to a part, want the whole document")
    (x509,) = _children(key, f"{_DS}X509Data")
    if not 0 < len(x509) <= MAX_CERTIFICATES:
        raise FormatError(f"{_SUBJECT}: {len(x509)} certificates, want 1..{MAX_CERTIFICATES}")
    certificates = _children(x509, *[f"{_DS}X509Certificate"] * len(x509))
    return (
        _base64(digest, DIGEST_SIZE),
        _canonical(info),
        _base64(value, SIGNATURE_SIZE),
        tuple(_base64(certificate) for certificate in certificates),
    )


def _golden(payload: Any) -> Mapping[int, tuple[bytes, ...]]:
    golden: dict[int, tuple[bytes, ...]] = {}
    seen: set[int] = set()
    for resource in payload:
        if resource.tag != f"{_SWID}Resource" or _attribute(resource, "type") != "Measurement":
            raise FormatError(f"{_SUBJECT}: the payload holds something else than measurements")
        index = _number(resource, "index", MAX_INDEX)
        if index in seen:
            raise FormatError(f"{_SUBJECT}: index {index} appears twice")
        seen.add(index)
        active = _ACTIVE.get(_attribute(resource, "active"))
        if active is None:
            raise FormatError(f"{_SUBJECT}: index {index} is neither active nor not")
        if active:
            golden[index] = _alternatives(resource, index)
    if not golden:
        raise FormatError(f"{_SUBJECT}: no active measurement, want some")
    return MappingProxyType(golden)


def _alternatives(resource: Any, index: int) -> tuple[bytes, ...]:
    count = _number(resource, "alternatives", MAX_ALTERNATIVES)
    names = [f"{_HASH}Hash{n}" for n in range(count)]
    if not names or {name for name in resource.attrib if name.startswith(_HASH)} != set(names):
        raise FormatError(f"{_SUBJECT}: index {index} does not have the {count} alternatives it says")
    if _number(resource, "size", DIGEST_SIZE) != DIGEST_SIZE:
        raise FormatError(f"{_SUBJECT}: index {index} is no SHA-384 digest")
    return tuple(_hex(resource.get(name), index) for name in names)


def _hex(text: str, index: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise FormatError(f"{_SUBJECT}: index {index} holds no hex") from error
    if len(value) != DIGEST_SIZE or len(text) != 2 * DIGEST_SIZE:
        raise FormatError(f"{_SUBJECT}: index {index} holds {len(value)} bytes, want {DIGEST_SIZE}")
    return value


def _children(parent: Any, *tags: str) -> list[Any]:
    """The children of `parent`, which are exactly these."""
    children = list(parent)
    if [child.tag for child in children] != list(tags):
        raise FormatError(f"{_SUBJECT}: {_shown(parent.tag)} holds other elements than it should")
    return children


def _attribute(element: Any, name: str) -> str:
    value = element.get(name)
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= 64
        or not value.isascii()
        or not value.isprintable()
    ):
        raise FormatError(f"{_SUBJECT}: {_shown(element.tag)} has no plain {name}")
    return value


def _number(element: Any, name: str, most: int) -> int:
    text = _attribute(element, name)
    if not text.isdecimal() or len(text) > 3 or str(int(text)) != text or int(text) > most:
        raise FormatError(f"{_SUBJECT}: {name} is {text[:8]!a}, want 0..{most}")
    return int(text)


def _base64(element: Any, size: int | None = None) -> bytes:
    if len(element) or element.attrib:
        raise FormatError(f"{_SUBJECT}: {_shown(element.tag)} holds more than text")
    try:
        value = b64decode("".join((element.text or "").split()), validate=True)
    except ValueError as error:
        raise FormatError(f"{_SUBJECT}: {_shown(element.tag)} is not base64") from error
    if not value or (size is not None and len(value) != size):
        raise FormatError(f"{_SUBJECT}: {_shown(element.tag)} is {len(value)} bytes, want {size or 'some'}")
    return value


def _canonical(element: Any) -> bytes:
    try:
        return bytes(etree.tostring(element, method="c14n", exclusive=False, with_comments=False))
    except etree.C14NError as error:
        raise FormatError(f"{_SUBJECT}: has no canonical form") from error


def _shown(tag: str) -> str:
    return ascii(tag.rpartition("}")[2])[1:-1][:32]
