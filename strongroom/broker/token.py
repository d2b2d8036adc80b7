"""The attestation token of a session: an EAR (draft-ietf-rats-ear) as an ES256 JWS, as KBS clients expect it.

It never says more than was checked when it was made: that the evidence is genuine. What runs in the machine is judged
later, per resource, so `executables` stays at "not recognised" and the status at "warning"; simulated silicon is
"contraindicated". The key in the header is information, not trust: `check` uses the key it is given.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from strongroom.broker.proof import Finding, Proof
from strongroom.errors import FormatError, VerifyError
from strongroom.keys.jwk import pack_point
from strongroom.wire.canonical import JSON, b64u, pack_json, parse_json, unb64u

PROFILE: Final = "tag:github.com,2024:confidential-containers/Trustee"
ISSUER: Final = "strongroom-broker"
LIFE: Final = timedelta(minutes=5)
MAX_TOKEN: Final = 256 << 10  # characters
_MAX_INIT_DATA: Final = 64 << 10  # characters of init-data that a token repeats
_WIDTH: Final = 32  # octets of r and of s

_GENUINE: Final = 2  # trustworthiness values, draft-ietf-rats-ar4si
_NOT_RECOGNISED: Final = 33
_UNSAFE: Final = 96
_CONTRAINDICATED: Final = 97


def claims(
    proof: Proof,
    finding: Finding,
    *,
    runtime: Mapping[str, JSON],
    now: datetime,
    life: timedelta = LIFE,
) -> dict[str, JSON]:
    """The claims of verified evidence. `runtime` is the session's nonce and the guest's public key."""
    primary = proof.evidence.primary
    said: dict[str, JSON] = {
        primary.tee: {**finding.cpu, "insecure_simulated": finding.simulated},
        "report_data": proof.digests.primary.hex(),
        "runtime_data_claims": dict(runtime),
    }
    if proof.init_data is not None:
        said["init_data"] = proof.init_data.digest.hex()
        if len(proof.init_data.text) <= _MAX_INIT_DATA:
            said["init_data_claims"] = proof.init_data.claims()
    submods: dict[str, JSON] = {"cpu0": _submodule(said, finding)}
    counted = dict.fromkeys((kind for kind, _ in finding.devices), 0)
    for kind, device in finding.devices:
        submods[f"{kind}{counted[kind]}"] = _submodule({"nvidia": dict(device)}, finding)
        counted[kind] += 1
    return {
        "eat_profile": PROFILE,
        "iss": ISSUER,
        "iat": int(now.timestamp()),
        "exp": int((now + life).timestamp()),
        "ear.verifier-id": {"developer": "strongroom", "build": "broker"},
        "submods": submods,
    }


def issue(claims: Mapping[str, JSON], key: ec.EllipticCurvePrivateKey) -> str:
    """The compact JWS of `claims` under a P-256 key."""
    jwk: JSON = {**pack_point(key.public_key()), "alg": "ES256"}
    header: JSON = {"typ": "JWT", "alg": "ES256", "jwk": jwk}
    signed = f"{b64u(pack_json(header))}.{b64u(pack_json(dict(claims)))}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(SHA256())))
    return f"{signed}.{b64u(r.to_bytes(_WIDTH, 'big') + s.to_bytes(_WIDTH, 'big'))}"


def check(token: str, key: ec.EllipticCurvePublicKey, *, now: datetime) -> dict[str, JSON]:
    """The claims of a token that `key` signed and that has not expired; FormatError or VerifyError otherwise."""
    if len(token) > MAX_TOKEN or token.count(".") != 2:
        raise FormatError(f"token: not a compact JWS of at most {MAX_TOKEN} characters")
    header, payload, signature = (unb64u(part, "token") for part in token.split("."))
    if _object(header).get("alg") != "ES256" or len(signature) != 2 * _WIDTH:
        raise FormatError("token: not signed with ES256")
    r, s = (int.from_bytes(half, "big") for half in (signature[:_WIDTH], signature[_WIDTH:]))
    try:
        key.verify(encode_dss_signature(r, s), token.rpartition(".")[0].encode(), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise VerifyError("token: the signature is not our broker's") from None
    value = _object(payload)
    require_in_time(value, now)
    return value


def require_in_time(claims: Mapping[str, JSON], now: datetime) -> None:
    """FormatError for claims that are not of a token of ours, VerifyError once they hold no more."""
    issued, expires = claims.get("iat"), claims.get("exp")
    if type(issued) is not int or type(expires) is not int or claims.get("eat_profile") != PROFILE:
        raise FormatError("token: iat, exp or eat_profile is not as issued here")
    if not issued <= now.timestamp() < expires:
        raise VerifyError("token: expired, a new handshake is needed")


def _submodule(said: dict[str, JSON], finding: Finding) -> JSON:
    vector = {
        "configuration": _UNSAFE if finding.debug else 0,
        "executables": _NOT_RECOGNISED,
        "hardware": _CONTRAINDICATED if finding.simulated else _GENUINE,
    }
    bad = max(vector.values()) >= _UNSAFE
    return {
        "ear.status": "contraindicated" if bad else "warning",
        "ear.trustworthiness-vector": {**vector},
        "ear.appraisal-policy-id": "none",
        "ear.veraison.annotated-evidence": {**said},
    }


def _object(part: bytes) -> dict[str, JSON]:
    value = parse_json(part, "token", max_bytes=MAX_TOKEN)
    if not isinstance(value, dict):
        raise FormatError("token: want objects")
    return value
