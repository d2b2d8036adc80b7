"""Mirrors sidecars/fs/protocol/notices.py."""

import struct

from sidecars.fs.protocol import notices


def test_a_notice_looks_like_a_reply_to_nothing() -> None:
    assert notices.pack_resend() == struct.pack("=IiQ", 16, 7, 0)
