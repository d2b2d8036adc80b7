"""The policy a verb judges by: read from a YAML file the user names. There is no default policy."""

import argparse
from pathlib import Path

from strongroom.appraise.policy import Policy
from strongroom.errors import ConfigError
from strongroom.host.yamltext import MAX_BYTES, parse_yaml


def add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="what you accept (YAML); `strongroom measure IMAGE --name NAME --policy-out FILE` writes one",
    )


def load_policy(path: Path | None) -> Policy:
    """Raises ConfigError for a policy that says something we refuse, or that was not named."""
    if path is None:
        raise ConfigError(
            "policy: none given, want --policy FILE; whoever builds the image writes one with "
            "`strongroom measure IMAGE --name NAME --policy-out FILE`"
        )
    with path.open("rb") as file:
        text = file.read(MAX_BYTES + 1)
    return Policy.from_raw(parse_yaml(text, str(path)), at=str(path))
