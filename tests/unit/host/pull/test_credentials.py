"""Mirrors host/pull/{challenge,address,credentials}.py: what is none, and what is never shown."""

from contextlib import suppress
from pathlib import Path

import pytest

from strongroom.errors import ConfigError, ProtocolError
from strongroom.host.pull.address import source_of
from strongroom.host.pull.challenge import Challenge
from strongroom.host.pull.credentials import Credentials
from tests.fakes.pulled import credentials


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Digest realm=x",
        "Bearer",
        "Bearer realm=",
        'Bearer realm="x',
        "Bearer a",
        "Bearer " + "x" * 3000,
        "=",
        "Bearer ,",
    ],
)
def test_a_challenge_that_is_none(text: str) -> None:
    with pytest.raises(ProtocolError, match="authentication asked for is"):
        Challenge.parse(text)


def test_a_challenge_cut_anywhere_is_refused_or_less() -> None:
    text = 'Bearer realm="https://a/token",service="s",scope="x"'
    for end in range(len(text)):
        with suppress(ProtocolError):
            assert Challenge.parse(text[:end]).realm == "https://a/token"


@pytest.mark.parametrize(
    "url",
    """http://x/y ftp://x x https:// https://u:p@x/ https://x/?q s3:// s3://B/x s3://b s3://bucket/../x s3://bucket//x
    oci://x oci://x/y oci://x/Y:z oci://x/y:z@sha256:0 oci://x/y:é oci://u@x/y:z hf://x hf://x/y/z hf://x/.. hf://x/y@a..b
    hf://x/y@""".split(),
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError):
        source_of(url, Credentials())


def test_options_of_other_stores_are_refused() -> None:
    with pytest.raises(ConfigError, match="--endpoint: is for s3 and hf"):
        source_of("https://x", Credentials(), endpoint="https://y")
    with pytest.raises(ConfigError, match="--region: is for s3"):
        source_of("hf://x/y", Credentials(), region="y")
    with pytest.raises(ConfigError, match="region: got"):
        source_of("s3://bucket", Credentials(), region="a/b")
    for endpoint in ("http://x", "https://x?y"):
        with pytest.raises(ConfigError, match="want https"):
            source_of("s3://bucket", Credentials(), endpoint=endpoint)
    with pytest.raises(ConfigError, match="want both AWS_ACCESS_KEY_ID and"):
        source_of("s3://bucket", credentials(AWS_ACCESS_KEY_ID="x"))
    with pytest.raises(ConfigError, match="want both REGISTRY_USER and"):
        source_of("oci://x/y:z", credentials(REGISTRY_PASSWORD="x"))


@pytest.mark.guarantee("G11")
def test_credentials_are_read_from_a_private_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text("# a store\n\nHF_TOKEN=hf_s3cret\nexport AWS_ACCESS_KEY_ID=\"a\"\nBEARER_TOKEN='b=c'\n")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="mode is 0640, want 0600"):
        Credentials.read(path)
    path.chmod(0o600)
    read = Credentials.read(path)
    assert (read.get("HF_TOKEN"), read.get("AWS_ACCESS_KEY_ID"), read.get("BEARER_TOKEN")) == (
        "hf_s3cret",
        "a",
        "b=c",
    )
    assert read.get("REGISTRY_USER") is None and "s3cret" not in repr(read)


def test_credentials_that_are_no_file() -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        Credentials.read(Path("/dev/null"))


@pytest.mark.parametrize(
    "text",
    [
        "s3cret",
        "HF_TOKEN=",
        "HF_TOKEN=s3c ret",
        "hf_token=s3cret",
        "OTHER=s3cret",
        "HF_TOKEN=a\nHF_TOKEN=s3cret",
        "HF_TOKEN='s3cret\x01'",
        "x" * 70_000,
    ],
)
def test_bad_credentials_are_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "credentials"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        Credentials.read(path)
    assert "s3c" not in str(caught.value) and "xxx" not in str(caught.value)
