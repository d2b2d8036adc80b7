"""An image in another form: its encrypted layers as plain ones, or the other way, in a new layout."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.host.images.layers import Layer, Progress
from strongroom.host.images.layout import PLATFORM, Layout, NewLayout
from strongroom.keys.jwe import CEK_BYTES, IV_BYTES
from strongroom.keys.jwk import PrivateKey, PublicKey
from strongroom.sealed.ocicrypt.envelope import seal
from strongroom.sealed.ocicrypt.image import MANIFEST, REF_NAME, Descriptor, Image, pack_index
from strongroom.sealed.ocicrypt.layer import (
    KEY_SIZE,
    NONCE_SIZE,
    PREFIX,
    SUFFIX,
    LayerKey,
    Sealing,
    is_encrypted,
    pack_annotations,
)

Entropy = Callable[[int], bytes]
_KEPT: Final = "sha256:"


def decrypt_image(
    layout: Layout, digest: str, dest: Path, *, key: PrivateKey, platform: str = PLATFORM, progress: Progress
) -> str:
    """The image with this digest, all its layers plain, in a new layout at `dest`; the result is its new digest.

    Nobody else can read it. VerifyError when a blob is not the one the image names, or a layer is not for `key`: then
    nothing of it stays.
    """
    image = layout.image(digest, platform=platform)
    layers = [Layer.open(layout, stored, key) for stored in image.layers]
    with NewLayout.create(dest, private=True) as new:
        plain = [_decrypted(new, layer, progress) for layer in layers]
        return _finish(new, layout, image, plain, layout.tag_of(digest))


def encrypt_image(
    layout: Layout,
    digest: str,
    dest: Path,
    *,
    recipients: Sequence[PublicKey],
    entropy: Entropy,
    platform: str = PLATFORM,
    progress: Progress,
) -> str:
    """The image with this digest, each plain layer under a key of its own for all `recipients`, in a new layout."""
    image = layout.image(digest, platform=platform)
    layers = [Layer(layout, stored, None) for stored in image.layers]
    with NewLayout.create(dest, private=False) as new:
        sealed = [_encrypted(new, layer, recipients, entropy, progress) for layer in layers]
        return _finish(new, layout, image, sealed, layout.tag_of(digest))


def _decrypted(new: NewLayout, layer: Layer, progress: Progress) -> Descriptor:
    notes = {name: text for name, text in layer.stored.annotations.items() if not name.startswith(PREFIX)}
    with new.blob() as blob:
        for piece in layer.plain(progress):
            blob.write(piece)
        return blob.finish(layer.media_type, notes)


def _encrypted(
    new: NewLayout, layer: Layer, recipients: Sequence[PublicKey], entropy: Entropy, progress: Progress
) -> Descriptor:
    notes = dict(layer.stored.annotations)
    with new.blob() as blob:
        if is_encrypted(layer.stored.media_type):
            for piece in layer.plain(progress):
                blob.write(piece)
            return blob.finish(layer.stored.media_type, notes)
        secret = LayerKey(
            key=entropy(KEY_SIZE),
            nonce=entropy(NONCE_SIZE),
            digest=bytes.fromhex(layer.stored.digest.removeprefix(_KEPT)),
        )
        sealing = Sealing(secret)
        for piece in layer.plain(progress):
            blob.write(sealing.update(piece))
        ephemerals = [_ephemeral(one) for one in recipients]
        envelope = seal(
            secret.pack(), recipients, ephemerals=ephemerals, cek=entropy(CEK_BYTES), iv=entropy(IV_BYTES)
        )
        notes |= pack_annotations(envelope, sealing.end())
        return blob.finish(layer.stored.media_type + SUFFIX, notes)


def _finish(new: NewLayout, layout: Layout, image: Image, layers: list[Descriptor], tag: str | None) -> str:
    new.document(image.config.media_type, layout.document(image.config.digest))
    manifest = new.document(MANIFEST, image.with_layers(layers))
    named = Descriptor(
        media_type=manifest.media_type,
        digest=manifest.digest,
        size=manifest.size,
        annotations={} if tag is None else {REF_NAME: tag},
    )
    new.finish(pack_index(named))
    return manifest.digest


def _ephemeral(recipient: PublicKey) -> ec.EllipticCurvePrivateKey | None:
    if isinstance(recipient, ec.EllipticCurvePublicKey):
        return ec.generate_private_key(recipient.curve)
    return None
