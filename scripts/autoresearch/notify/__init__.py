"""Tell a person something on a phone: best effort, never in the way of the loop, never with a secret in a text.

Channels are apprise URLs, or files that hold one URL a line. They are handed to a process of its own, which
sends to all of them at once, records in the ledger how that went, and is gone after a bounded time.
"""

from __future__ import annotations

from autoresearch.notify.channels import check_channels
from autoresearch.notify.letter import Kind, Letter
from autoresearch.notify.post import Delivery, notify, notify_and_wait

__all__ = ["Delivery", "Kind", "Letter", "check_channels", "notify", "notify_and_wait"]
