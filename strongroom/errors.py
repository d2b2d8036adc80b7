"""Every error Strongroom raises on purpose, and the exit code each one owns.

    StrongroomError            1   our own defect, or a failure no leaf describes
    ├── ConfigError            3   userdata, a policy file or a command line says something we refuse
    ├── FormatError            4   bytes are not what their format demands
    ├── VerifyError            5   evidence or a signature is not genuine
    ├── PolicyError            6   genuine, but not acceptable
    ├── ProtocolError          7   a peer broke the exchange, or we called out of order
    └── MachineError           8   a device, a file, a unit or a process failed
        └── TransportError     9   a peer could not be reached in time: the only error that is ever retried

Exit code 2 is argparse's own (usage). Messages are lowercase and one line: subject, what was found, what was wanted.
"""

from typing import ClassVar


class StrongroomError(Exception):
    """A failure with an exit code; str() is one line fit for a person."""

    exit_code: ClassVar[int] = 1


class ConfigError(StrongroomError):
    exit_code = 3


class FormatError(StrongroomError):
    exit_code = 4


class VerifyError(StrongroomError):
    exit_code = 5


class PolicyError(StrongroomError):
    exit_code = 6


class ProtocolError(StrongroomError):
    exit_code = 7


class MachineError(StrongroomError):
    exit_code = 8


class TransportError(MachineError):
    exit_code = 9
