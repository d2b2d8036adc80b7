"""Where a URL leads: https://, s3://, oci:// and hf:// to the stores that understand them."""

from strongroom.errors import ConfigError
from strongroom.host.pull.credentials import Credentials
from strongroom.host.pull.registry import Registry
from strongroom.host.pull.s3 import Bucket
from strongroom.host.pull.source import Source
from strongroom.host.pull.web import hugging_face, web


def source_of(
    url: str, credentials: Credentials, *, endpoint: str | None = None, region: str | None = None
) -> Source:
    """The store and the place that `url` names; ConfigError for any other, and for options it has no use for."""
    scheme, separator, place = url.partition("://")
    if endpoint is not None and scheme not in ("s3", "hf"):
        raise ConfigError(f"--endpoint: is for s3 and hf, not for {scheme[:20]!a}")
    if region is not None and scheme != "s3":
        raise ConfigError(f"--region: is for s3, not for {scheme[:20]!a}")
    match scheme if separator else "":
        case "https":
            return web(url, credentials)
        case "s3":
            return Bucket(place, credentials, endpoint=endpoint, region=region)
        case "oci":
            return Registry(place, credentials)
        case "hf":
            return hugging_face(place, credentials, endpoint=endpoint)
        case "http":
            raise ConfigError("url: http shows credentials to everyone on the way, want https")
        case _:
            raise ConfigError(f"url: got {url[:200]!a}, want https://, s3://, oci:// or hf://")
