"""What the documents state is what the code does."""

import re

from strongroom import errors
from strongroom.errors import StrongroomError
from tests import ROOT


def exit_codes() -> dict[str, int]:
    kinds = (
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StrongroomError)
    )
    return {kind.__name__: kind.exit_code for kind in kinds}


def test_exit_codes_in_the_docs_are_those_of_the_errors() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)
    assert {name: int(code) for code, name in rows} == exit_codes()


def test_exit_codes_are_distinct_and_leave_success_and_usage_alone() -> None:
    codes = list(exit_codes().values())
    assert len(set(codes)) == len(codes)
    assert not {0, 2} & set(codes)


def test_links_between_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.relative_to(ROOT)}: {target}"
