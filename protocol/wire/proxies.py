"""Which proxy a request to storage goes through. WireServer, HostGAPlugin and metadata never have
one: they are not reachable from anywhere else. Pure.

The option wins; only without HttpProxy.Host the environment of the agent counts, as other programs
read it: lower case first, `no_proxy` as a list of networks, addresses and name suffixes. A user and
password in it are passed on to the proxy, and never logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def proxies(configuration: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """For requests' ``proxies``: scheme to proxy, and `no_proxy`; empty: directly."""
    host, port = configuration.get("HttpProxy.Host"), configuration.get("HttpProxy.Port")
    if host:
        if not port:
            return {}
        name = f"[{host}]" if ":" in str(host) and not str(host).startswith("[") else host
        return {scheme: f"http://{name}:{port}" for scheme in ("http", "https")}
    found: dict[str, str] = {}
    for scheme in ("http", "https"):
        url = environment.get(f"{scheme}_proxy") or environment.get(f"{scheme.upper()}_PROXY")
        if url:
            found[scheme] = url if "://" in url else f"http://{url}"
    exceptions = environment.get("no_proxy") or environment.get("NO_PROXY")
    if found and exceptions:
        found["no_proxy"] = exceptions
    return found


def problem(configuration: Mapping[str, Any]) -> str:
    """What is wrong with the options, for the log; empty when nothing is."""
    if configuration.get("HttpProxy.Host") and not configuration.get("HttpProxy.Port"):
        return (
            "HttpProxy.Host without HttpProxy.Port: waagent.conf: no proxy is used; write"
            " HttpProxy.Port"
        )
    return ""
