"""Mirrors guest/stages/keys.py: a machine with GPUs, and a broker that verifies it, with TLS in between."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from guest.attester import Attester
from guest.broker import KeyBroker, speaking
from guest.config import Broker
from guest.stages.keys import Keys, Release, obtain_keys
from strongroom.broker.dialect import DIALECTS
from strongroom.errors import PolicyError, ProtocolError
from strongroom.evidence.gpu import GPUEvidence
from strongroom.host.collateral.store import Store
from strongroom.host.genuine import Verifier
from strongroom.wire.canonical import parse_json
from tests.fakes.broker import URI, VOLUME, desk, respond_with
from tests.fakes.composite import gpus
from tests.fakes.https import Heard, certificate, listening
from tests.unit.guest.test_evidence import FakeTSM
from tests.unit.host.test_genuine import SNP, PolicyKeeper, policy


class _Named:
    """Attributes that are only walked through."""

    def __init__(self, **names: object) -> None:
        self.__dict__.update(names)


async def devices(nonce: bytes) -> tuple[GPUEvidence, ...]:
    return gpus(SNP.devices, nonce=nonce)


async def booted(**options: Any) -> Attester:
    attester = Attester(FakeTSM(), **options)
    for event in SNP.events.events:
        await attester.extend(event.name, event.payload)
    return attester


def obtain(directory: Path, attester: Attester, **broker: Any) -> tuple[Keys, Heard]:
    SNP.fill(Store.create(directory / "collateral"))
    shown = certificate(directory)
    keeper = PolicyKeeper(policy("snp"), Verifier(directory / "collateral"))

    async def run() -> tuple[Keys, Heard]:
        async with listening(directory, respond_with(desk(keeper))) as heard:
            at = Broker(
                url=heard.url, ca_pem=None, spki_sha256=shown.spki_sha256.hex(), deadline_s=10, **broker
            )
            workload = _Named(config=_Named(broker=at, model=_Named(key=str(URI), push=None)))
            async with KeyBroker(attester) as key_broker:
                system = _Named(attester=attester, broker=key_broker)
                return await obtain_keys(system, workload), heard  # type: ignore[arg-type]

    return asyncio.run(run())


@pytest.mark.guarantee("G1")
def test_a_machine_with_gpus_gets_its_key_by_their_evidence(tmp_path: Path) -> None:
    attester = asyncio.run(booted(devices=devices))
    keys, heard = obtain(tmp_path, attester)
    assert (keys.key, keys.release) == (VOLUME.key, Release(VOLUME.root, VOLUME.epoch))
    assert len(heard.requests) == 3
    said = parse_json(attester.log.find("keys") or b"", "keys")
    assert isinstance(said, dict) and said["resource"] == str(URI)


@pytest.mark.guarantee("G1")
def test_without_the_evidence_of_its_gpus_it_gets_none(tmp_path: Path) -> None:
    attester = asyncio.run(booted())
    with pytest.raises(PolicyError, match="gpus is 0, want 2"):
        obtain(tmp_path, attester)
    assert attester.log.find("keys") is None


def test_a_broker_is_spoken_to_as_userdata_says(tmp_path: Path) -> None:
    old = Broker(url="", ca_pem=None, spki_sha256=None, deadline_s=1, protocol="0.2.0", hash="sha512")
    assert (speaking(old).dialect, speaking(old).hashes) == (DIALECTS["0.2.0"], ("sha512",))
    with pytest.raises(ProtocolError, match=r"broker speaks protocol 0\.4\.0, we speak 0\.3\.0"):
        obtain(tmp_path, asyncio.run(booted()), protocol="0.3.0")
