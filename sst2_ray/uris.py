"""URIs of object stores: the file system behind one, through the proxy that the environment names."""

from __future__ import annotations

import os
import re
import urllib.request
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pyarrow.fs as pafs

from sst2_ray.formatting import without_secret

_AMAZON = urlsplit("https://s3.amazonaws.com")
_S3_SWITCHES = ("allow_bucket_creation", "allow_bucket_deletion", "force_virtual_addressing")


def open_uri(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a URI and the path on it; S3 through the proxy that the environment names.

    Raises:
        ValueError, OSError: The URI is none, or of a scheme that pyarrow does not know. No message repeats its credentials.
    """
    try:
        return _opened(uri)
    except ValueError as error:
        shown = without_secret(uri)
        said = str(error).replace(uri, shown)
        raise ValueError(said if shown == uri else re.sub(r"\S*@", "", said)) from None


def _opened(uri: str) -> tuple[pafs.FileSystem, str]:
    """Open a URI. pyarrow reads no proxy from the environment for S3, as every other client does, and looks up a bucket's
    region without."""
    parts = urlsplit(uri)
    if parts.scheme == "s3" and ":" in parts.netloc and "@" not in parts.netloc and "@" in uri:
        # Some parsers take what follows the '/' for a path, and would name it in messages.
        raise ValueError("its key and secret end too early: write '/' in them as %2F, '?' as %3F, '#' as %23")
    query = dict(parse_qsl(parts.query))
    endpoint = _s3_endpoint(query)
    proxy = _proxy_of(endpoint) if parts.scheme == "s3" else None
    if proxy is None:
        return pafs.FileSystem.from_uri(uri)
    options: dict[str, Any] = {name: query[name].lower() in ("true", "1") for name in _S3_SWITCHES if name in query}
    if endpoint != _AMAZON:
        options |= {"scheme": endpoint.scheme, "endpoint_override": endpoint.netloc}
    if parts.username:
        options |= {"access_key": unquote(parts.username), "secret_key": unquote(parts.password or "")}
    region = query.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        options["region"] = region
    path = f"{parts.netloc.rpartition('@')[2]}{unquote(parts.path)}"
    return pafs.S3FileSystem(**options, proxy_options=proxy), path.rstrip("/")


def _s3_endpoint(query: dict[str, str]) -> SplitResult:
    """Return the address of S3 by a URI's query, else by the environment."""
    named = (
        query.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    )
    if not named:
        return _AMAZON
    return urlsplit(named if "://" in named else f"{query.get('scheme', 'https')}://{named}")


def _proxy_of(endpoint: SplitResult) -> str | None:
    """Return the URL of the proxy for an address by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; None: directly."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(endpoint.scheme) or proxies.get("all") or ""
    proxy = proxy if "://" in proxy or not proxy else f"http://{proxy}"
    # The client of S3 knows no SOCKS.
    is_used = proxy.startswith(("http://", "https://")) and not urllib.request.proxy_bypass(endpoint.netloc)
    return proxy if is_used else None
