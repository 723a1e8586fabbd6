"""The channels of a config: apprise URLs and files of them. A URL holds secrets, so no message shows one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoresearch.config import masked
from autoresearch.errors import MachineError, UsageError

HINT = "See references/notifications.md for examples, such as ntfys://TOPIC; a file of URLs is named as ~/PATH."


def is_file(channel: str) -> bool:
    return channel.startswith(("~", "/"))


def urls_of(channels: Sequence[str]) -> list[str]:
    """The URLs that the channels amount to; a file that cannot be read raises ``OSError``."""
    urls: list[str] = []
    for channel in channels:
        if not is_file(channel):
            urls.append(channel)
            continue
        lines = Path(channel).expanduser().read_text(encoding="utf-8").splitlines()
        urls += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return urls


def check_channels(channels: Sequence[str]) -> None:
    """``UsageError`` for a channel that apprise cannot use; its message names the service at most."""
    for channel in channels:
        try:
            urls = urls_of([channel])
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise UsageError(
                f"`notify` names the file {masked(channel)}, which cannot be read: {reason}.",
                hint="Put one URL a line into it.",
                code="notify_file",
            ) from None
        if not urls:
            raise UsageError(
                f"`notify` names the file {channel}, which holds no URL.",
                hint="Put one URL a line into it.",
                code="notify_file",
            )
        for url in urls:
            if not _is_understood(url):
                where = f"a URL in {channel}" if is_file(channel) else f"`notify` has a URL ({masked(url)}) that"
                which = "is not one that apprise understands" if is_file(channel) else "apprise does not understand"
                raise UsageError(f"{where} {which}.", hint=HINT, code="notify_url")


def _is_understood(url: str) -> bool:
    import logging

    try:
        from apprise import Apprise
    except ImportError:
        raise MachineError(
            "`notify` is set, and the package apprise is missing.", hint="pip install apprise, or leave `notify` out."
        ) from None
    logging.getLogger("apprise").addHandler(logging.NullHandler())  # else it prints the URL that it refuses
    return "://" in url and Apprise.instantiate(url, suppress_exceptions=True) is not None
