"""What one tenant has used, in numbers: no content, no identifiers."""

from dataclasses import dataclass
from enum import StrEnum

from strongroom.wire.canonical import JSON


class Reason(StrEnum):
    """Why a completion was not let in. The value is what metrics call it."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    LINE = "queue_full"
    PATIENCE = "queue_deadline"


@dataclass(slots=True)
class Usage:
    """Since `since`, in unix seconds: when this process began to count."""

    since: int
    requests: int = 0  # completions that were let in
    refused: int = 0  # that were not
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def to_json(self) -> dict[str, JSON]:
        return {
            "object": "usage",
            "since": self.since,
            "requests": self.requests,
            "refused": self.refused,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
