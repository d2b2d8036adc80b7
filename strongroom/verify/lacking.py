"""The one refusal that says nothing against a machine: what its maker signs about it is not at hand, or too old."""

from strongroom.errors import VerifyError


class LackingError(VerifyError):
    """Genuine or not cannot be told without collateral that is absent or out of date; more of it may help."""
