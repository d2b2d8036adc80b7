"""Mirrors strongroom/evidence/rim.py."""

from hashlib import sha384
from typing import Any, Final

import pytest

from strongroom.errors import FormatError
from strongroom.evidence.rim import MAX_BYTES, RIM
from tests.fakes.nvidia import DRIVER, DRIVER_INDICES, content, golden, nvidia, vectors

REAL: Final = vectors("nvidia-rim", "nvidia-rim-negative")
XML: Final = nvidia().driver_rim()
TEXT: Final = XML.decode()


@pytest.mark.parametrize("vector", REAL, ids=lambda vector: vector["id"])
def test_a_real_manifest_gives_the_listed_fields(vector: dict[str, Any]) -> None:
    rim, expect = RIM.parse(content(vector, "rim")), vector["expect"]
    assert (rim.version, rim.product, rim.name) == (expect["version"], expect["product"], expect["swid_name"])
    assert list(rim.golden) == expect["active_indices"]
    assert len(rim.certificates) == len(expect["certificates"])
    assert (sha384(rim.content).digest() == rim.digest) is expect["digest_ok"]


def test_a_manifest_of_our_own() -> None:
    rim = RIM.parse(XML)
    assert (rim.product, rim.version) == ("GH100", DRIVER)
    assert rim.golden == {index: (golden("GH100", index),) for index in DRIVER_INDICES}
    assert sha384(rim.content).digest() == rim.digest
    assert b"DigestValue" in rim.signed_info and b"Signature" not in rim.content
    assert RIM.parse(b'<?xml version="1.0" encoding="UTF-8"?>' + XML) == rim


@pytest.mark.parametrize("n", [*range(0, len(XML), 97), len(XML) - 1])
def test_a_cut_manifest_is_refused(n: int) -> None:
    with pytest.raises(FormatError, match=r"^rim: "):
        RIM.parse(XML[:n])


RESOURCE: Final = TEXT[TEXT.index("<ns0:Resource") : TEXT.index("/>", TEXT.index("<ns0:Resource")) + 2]
SIGNATURE: Final = TEXT[TEXT.index("<ds:Signature ") : TEXT.index("</ds:Signature>") + 15]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<SoftwareIdentity", '<!DOCTYPE x [<!ENTITY e "e">]><SoftwareIdentity'),
        ("<SoftwareIdentity", '<!DOCTYPE SoftwareIdentity SYSTEM "file:///etc/passwd"><SoftwareIdentity'),
        ("<ns0:Entity", "<!-- comment --><ns0:Entity"),
        ("<ns0:Entity", "<?target text?><ns0:Entity"),
        ("<ns0:Entity", "<![CDATA[text]]><ns0:Entity"),
        ('version="1.0"', 'version="1.0" xml:id="x"'),
        ('version="1.0"', 'version="1.0" xmlns:r="relative"'),
        ("SoftwareIdentity", "SoftwareIdentities"),
        (SIGNATURE, ""),
        (SIGNATURE, SIGNATURE + SIGNATURE),
        (SIGNATURE, SIGNATURE + "text"),
        (SIGNATURE, SIGNATURE + " "),
        ("<ns0:Entity", "text<ns0:Entity"),
        (SIGNATURE + "</SoftwareIdentity>", "</SoftwareIdentity>" + SIGNATURE),
        ("</ns0:Payload>", "</ns0:Payload><ns0:Payload/>"),
        ("<ns0:Payload>", "<ns0:Meta colloquialVersion='1' product='2'/><ns0:Payload>"),
        ("</ns0:Payload>", RESOURCE + "</ns0:Payload>"),
        ("</ns0:Payload>", "<ns0:Directory/></ns0:Payload>"),
        (RESOURCE, RESOURCE.replace("Measurement", "Opaque", 1)),
        (RESOURCE, RESOURCE.replace('index="0"', 'index="00"')),
        (RESOURCE, RESOURCE.replace('index="0"', 'index="-1"')),
        (RESOURCE, RESOURCE.replace('index="0"', 'index="255"')),
        (RESOURCE, RESOURCE.replace('active="False"', 'active="true"')),
        ('active="True" alternatives="1"', 'active="True" alternatives="2"'),
        ('active="True" alternatives="1"', 'active="True" alternatives="0"'),
        ('active="True" alternatives="1"', 'active="True"'),
        (golden("GH100", 7).hex(), golden("GH100", 7).hex()[:-1]),
        (golden("GH100", 7).hex(), golden("GH100", 7).hex()[:-2]),
        (golden("GH100", 7).hex(), "zz" * 48),
        ('name="Measurement_7" size="48"', 'name="Measurement_7" size="32"'),
        ('active="True"', 'active="False"'),
        ('Reference URI=""', 'Reference URI="#x"'),
        ('Reference URI=""', 'Reference URI="" Type="x"'),
        ("xml-c14n11", "xml-c14n12"),
        ("ecdsa-sha384", "ecdsa-sha1"),
        ("enveloped-signature", "base64"),
        ("xmldsig-more#sha384", "xmldsig-more#md5"),
        ("</ds:Transforms>", '<ds:Transform Algorithm="x"/></ds:Transforms>'),
        ("<ds:SignatureValue>", "<ds:SignatureValue>AAAA"),
        ("<ds:DigestValue>", "<ds:DigestValue>*"),
        ("<ds:X509Data>", "<ds:X509Data><ds:X509CRL/>"),
        ("<ds:X509Data>", "<ds:X509Data>" + "<ds:X509Certificate>AAAA</ds:X509Certificate>" * 5),
        ('product="GH100"', 'product=""'),
        ('product="GH100"', 'product="G\u00e4"'),
    ],
)
def test_any_other_shape_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(FormatError, match=r"^rim: "):
        RIM.parse(TEXT.replace(old, new).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        XML + b"<x/>",
        b" " * (MAX_BYTES + 1),
        TEXT.encode("utf-16"),
        b'<?xml version="1.0" encoding="UTF-16"?>' + TEXT.encode("utf-16-le"),
        b'<?xml version="1.0" encoding="UTF-7"?>' + XML.replace(b"<ns0:Entity", b"+ADwAIQ--><ns0:Entity"),
    ],
    ids=["empty", "junk", "two-roots", "large", "utf-16", "declared-utf-16", "declared-utf-7"],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^rim: "):
        RIM.parse(data)


def test_several_alternatives() -> None:
    rim = RIM.parse(nvidia().driver_rim(values={7: [bytes(48), b"\1" * 48]}))
    assert rim.golden[7] == (bytes(48), b"\1" * 48)
