"""Init-data in this guest: believed where the hardware commits to it, for the userdata and the broker it names.

    [data]
    "user-data" = '''#cloud-config ...'''      the userdata itself; the seed then has none
    "user-data.sha256" = "<hex>"               or the digest of the seed's: exactly one of the two
    "aa.toml" = '''...'''                      where its key broker is, for userdata that does not say

Whoever pins the digest of init-data means everything that is decided by it, so it has to say which userdata there is.
All else in it is for other programs and is not looked at here.
"""

from typing import Final

from guest import bounds
from guest.attester import Attester, Launch
from guest.userdata import Userdata
from strongroom.errors import ConfigError, PolicyError
from strongroom.evidence.initdata import InitData, fitted
from strongroom.evidence.kbs import AZURE

USERDATA: Final = "user-data"
USERDATA_SHA256: Final = "user-data.sha256"
EVENT: Final = "init-data"  # payload: the SHA-256 of its text
_BY_REGISTER: Final = (
    *AZURE,
    "tpm",
)  # where PCR 8 tells of it, which the guest extends; elsewhere the launcher does


def carried(init_data: InitData) -> Userdata | None:
    """The userdata inside, or None where it names that of the seed by digest. ConfigError for neither and for both."""
    inside, digest = (init_data.data.get(name) for name in (USERDATA, USERDATA_SHA256))
    if (inside is None) == (digest is None):
        raise ConfigError(
            f"init-data: has {'neither' if inside is None else 'both'} of {USERDATA} and {USERDATA_SHA256}, "
            "want exactly one"
        )
    return None if inside is None else Userdata.of(inside.encode())


def check_named(init_data: InitData, userdata: Userdata) -> None:
    """PolicyError unless this is the userdata that the init-data names by its digest."""
    wanted = bounds.SHA256.check(init_data.data[USERDATA_SHA256].strip(), f"init-data.{USERDATA_SHA256}")
    if userdata.sha256.hex() != wanted:
        raise PolicyError(f"userdata: sha256 is {userdata.sha256.hex()}, but the init-data names {wanted}")


def broker_address(init_data: InitData) -> tuple[str, str] | None:
    """URL and CA (PEM) of the broker it names, or None. ConfigError for what userdata could not say either."""
    if (said := init_data.broker()) is None:
        return None
    at = "init-data: aa.toml: token_configs.kbs"
    url = bounds.BROKER_URL.check(said.url.rstrip("/"), f"{at}.url")
    if said.certificate is None:
        raise ConfigError(f"{at}.cert: missing, want one PEM certificate")
    return url, bounds.CERTIFICATE.check(said.certificate.strip() + "\n", f"{at}.cert")


async def bind(attester: Attester, init_data: InitData, launch: Launch) -> None:
    """PolicyError unless the launcher committed to this init-data; behind a paravisor, extend the register with it.

    That register is the guest's own word, so it has to be at zero before, and to take the digest: else MachineError.
    """
    if await attester.broker_tee() in _BY_REGISTER:
        await attester.bind_init_data(init_data.digest)
        return
    wanted = fitted(init_data.digest, len(launch.committed))
    if launch.committed != wanted:
        name = "mr_config_id" if launch.tee == "tdx" else "host_data"
        raise PolicyError(
            f"init-data: digest is {wanted.hex()}, but the guest was launched with {name} {launch.committed.hex()}"
        )
