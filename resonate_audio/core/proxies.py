"""Proxies of the environment, told where something cannot be reached: they may be why."""

from __future__ import annotations

import os
import urllib.request
from urllib.parse import urlsplit


def through_proxy(url: str) -> str:
    """Which proxy a request for an address goes through, as words after an error; else nothing.

    Args:
        url: what cannot be reached.

    Returns:
        Words that name the variable and, without user and password, the proxy.
    """
    try:
        parts = urlsplit(url)
        host, scheme = parts.hostname or "", parts.scheme
    except ValueError:
        return ""
    proxies = urllib.request.getproxies()
    if host and urllib.request.proxy_bypass(host):
        return ""
    for kind in (scheme, "all"):
        if proxies.get(kind):
            named = next(
                (n for n in (f"{kind.upper()}_PROXY", f"{kind}_proxy") if n in os.environ), ""
            )
            told = f" by {named}" if named else ""
            return (
                f"; the request goes through the proxy {_without_password(proxies[kind])}{told}: "
                f"see whether that is up, or set NO_PROXY={host or '…'}"
            )
    return ""


def _without_password(proxy: str) -> str:
    return proxy.rpartition("@")[2] if "@" in proxy else proxy
