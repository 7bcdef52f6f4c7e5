"""What an address names. A local path, or a store with a bucket, a path in it and options::

    /data/photos    file:///data/photos    s3://bucket/photos    gs://bucket/photos
    s3://bucket/photos?endpoint_override=minio:9000&scheme=http    s3://bucket/photos?region=eu-west-1&profile=archive

A path in a store is taken letter by letter, as the stores' own tools take it: a space is a space and %20 is not. What
is behind the first `?` are options. One connection serves all addresses of a bucket that have the same options, and no
others: another bucket may lie in another region, behind another endpoint, or belong to somebody else.
"""

from __future__ import annotations

import configparser
import contextlib
import functools
import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from retrieval.artifacts.storage.patience import patiently

OPTIONS: dict[str, dict[str, str]] = {
    "s3": {
        "region": "the bucket's region; by default the store is asked",
        "endpoint_override": "host:port of a store that is not AWS; else $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL",
        "scheme": "http or https (default)",
        "profile": "the section of ~/.aws/credentials with the keys",
        "role_arn": "a role to take on, with the credentials that are found",
        "anonymous": "true: a public bucket, without credentials",
        "tls_ca_file_path": "a file of certificates to trust, PEM",
        "force_virtual_addressing": "true: bucket.host, where a store other than AWS wants it",
    },
    "gs": {
        "endpoint_override": "host:port of a store that is not Google's",
        "scheme": "http or https (default)",
        "anonymous": "true: a public bucket, without credentials",
        "project_id": "the project that pays",
    },
}
"""scheme -> option -> what it says."""

SINGLE_PUT = 8 << 20
"""Bytes; pyarrow 25 cuts what has more than 10 MiB into parts."""

_TRIES = 5  # of each single request to S3, within seconds; `patience` waits for longer outages
_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """An address in a store, taken apart."""

    scheme: str
    bucket: str
    path: str
    """In the bucket, without a slash at either end."""
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        named = "/".join(part for part in (self.bucket, self.path) if part)
        return f"{self.scheme}://{named}" + (
            f"?{urllib.parse.urlencode(self.options, safe=':/')}" if self.options else ""
        )

    @property
    def key(self) -> str:
        """bucket/path, as file systems of pyarrow want it."""
        return f"{self.bucket}/{self.path}" if self.path else self.bucket


def parse(uri: str) -> Address:
    """An address with ://, but not file://.

    Raises: ValueError for an unknown scheme or option, one that is given twice, no bucket, or keys in the address.
    """
    scheme, _, rest = uri.partition("://")
    named, _, asked = rest.partition("?")
    bucket, _, path = named.partition("/")
    if scheme not in OPTIONS:
        raise ValueError(f"{uri} is in no store that is known here. Give a path, file://, {'://, '.join(OPTIONS)}://.")
    if "@" in bucket or ":" in bucket:  # a key may hold a slash: what is before it looks like a bucket
        raise ValueError(
            f"An address must hold no credentials, since it is written to logs and manifests, and what this one says "
            f"between {scheme}:// and the next slash is no bucket. Put keys into AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY, or a profile; and a host behind the path: ?endpoint_override=HOST:PORT."
        )
    if not bucket:
        raise ValueError(f"{uri} names no bucket. Expected {scheme}://BUCKET/PATH.")
    given = urllib.parse.parse_qsl(asked, keep_blank_values=True)
    if unknown := [name for name, _ in given if name not in OPTIONS[scheme]]:
        raise ValueError(
            f"'{unknown[0]}' is no option of a {scheme}:// address. Choose among {', '.join(OPTIONS[scheme])}. "
            f"A folder that has a question mark in its name cannot be addressed."
        )
    if len(dict(given)) < len(given):
        raise ValueError(f"{uri} gives an option twice.")
    return Address(scheme, bucket, path.strip("/"), tuple(sorted(given)))


def parse_photo(uri: str, options: tuple[tuple[str, str], ...] = ()) -> Address:
    """The address of one file, as a table names it. A `?` that begins no options is part of the file's name.

    Args: options: of the table's own address, for a file that has none and lies in a store of the same kind.

    Raises: ValueError as `parse`.
    """
    asked = uri.partition("?")[2]
    names = [name for name, _ in urllib.parse.parse_qsl(asked, keep_blank_values=True)]
    scheme = uri.partition("://")[0]
    if names and all(name in OPTIONS.get(scheme, ()) for name in names):
        return parse(uri)
    found = parse(uri.partition("?")[0])
    path = f"{found.path}?{asked}" if "?" in uri else found.path
    return Address(found.scheme, found.bucket, path, options)


def local_path(uri: str) -> str | None:
    """The path of a file:// address; None for one of a store. Raises: ValueError if it names another host."""
    if not uri.startswith("file://"):
        return None
    parts = urllib.parse.urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"{uri} names a path of another machine. Expected file:///PATH, with three slashes.")
    return urllib.parse.unquote(parts.path)


def open_address(address: Address, *, puts: bool = False) -> pafs.FileSystem:
    """The file system that an address lies in: one a process, scheme, bucket and options.

    Args: puts: for files of at most SINGLE_PUT bytes: one request each in place of three. Larger ones must not be
        written with it: where the first request of a larger one fails, pyarrow puts an empty file in its place.

    Raises: ValueError for options that do not fit; OSError if the store must be asked and does not answer.
    """
    more = {"allow_delayed_open": True} if puts and address.scheme == "s3" else {}
    return _open(address.scheme, address.bucket, address.options, **more)


@functools.lru_cache(maxsize=32)
def _open(scheme: str, bucket: str, options: tuple[tuple[str, str], ...], **more: Any) -> pafs.FileSystem:
    if scheme == "s3":
        return pafs.S3FileSystem(**_s3(bucket, dict(options)), **more)
    rest = dict(options)
    user = "anonymous@" if _flag(rest.pop("anonymous", "")) else ""
    query = f"?{urllib.parse.urlencode(rest)}" if rest else ""
    return pafs.FileSystem.from_uri(f"{scheme}://{user}{bucket}{query}")[0]


def _s3(bucket: str, options: dict[str, str]) -> dict[str, Any]:
    """The arguments of `S3FileSystem`, which by itself asks neither the environment nor the store for a place."""
    made: dict[str, Any] = {name: value for name, value in options.items() if name in ("role_arn", "tls_ca_file_path")}
    if endpoint := _endpoint(options):
        made |= {"endpoint_override": endpoint.partition("://")[2], "scheme": endpoint.partition("://")[0]}
    made["anonymous"] = _flag(options.get("anonymous", ""))
    made["force_virtual_addressing"] = _flag(options.get("force_virtual_addressing", ""))
    made["connect_timeout"] = _CONNECT_S
    if profile := options.get("profile"):
        made |= _keys_of(profile)
    if region := options.get("region") or made.pop("region", None):
        made["region"] = region
    elif endpoint:  # not left to the SDK, which would ask a service that only machines of AWS have
        made["region"] = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    else:
        made["region"] = patiently(lambda: pafs.resolve_s3_region(bucket), f"asking for the bucket {bucket}")
    return made | {"retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=_TRIES)}


def endpoint_of(address: Address) -> str:
    """SCHEME://HOST:PORT of the store, where it is said by the address or the environment; else empty."""
    return _endpoint(dict(address.options)) if address.scheme == "s3" else ""


def _endpoint(options: dict[str, str]) -> str:
    host, scheme = options.get("endpoint_override", ""), options.get("scheme", "https")
    told = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not host and told:
        parts = urllib.parse.urlsplit(told)
        host, scheme = parts.netloc, options.get("scheme", parts.scheme)
    return f"{scheme}://{host}" if host else ""


def keys_of(address: Address) -> dict[str, str]:
    """For a client that reads the environment and not `~/.aws/credentials`: what that file holds for an address.

    Returns: access_key_id, secret_access_key, session_token of the profile that the address names; else, where the
    environment has no keys, of $AWS_PROFILE or `default`; nothing where the file has none.

    Raises: ValueError if the profile that the address names is not there, or has no keys of its own.
    """
    profile, found = dict(address.options).get("profile"), dict[str, str]()
    names = {"access_key": "access_key_id", "secret_key": "secret_access_key", "session_token": "session_token"}
    if profile:
        found = _keys_of(profile)
    elif address.scheme == "s3" and "AWS_ACCESS_KEY_ID" not in os.environ:
        with contextlib.suppress(ValueError):  # then the host has a role, or nobody has keys
            found = _keys_of(os.environ.get("AWS_PROFILE") or "default")
    return {theirs: found[ours] for ours, theirs in names.items() if ours in found}


def _keys_of(profile: str) -> dict[str, str]:
    """The keys of a profile, read where AWS's own tools read them.

    Raises: ValueError if there is no such profile, or it has no keys of its own.
    """
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    found = configparser.RawConfigParser()
    found.read(file)
    if not found.has_section(profile):
        known = ", ".join(found.sections()) or "none"
        raise ValueError(f"{file} has no profile '{profile}', only: {known}. Every node needs that file.")
    keys = found[profile]
    if not {"aws_access_key_id", "aws_secret_access_key"} <= set(keys):
        raise ValueError(
            f"The profile '{profile}' of {file} holds no keys. For one that is filled otherwise (SSO, a process), set "
            f"AWS_PROFILE={profile} instead."
        )
    made = {"access_key": keys["aws_access_key_id"], "secret_key": keys["aws_secret_access_key"]}
    for name, ours in (("aws_session_token", "session_token"), ("region", "region")):
        if keys.get(name):
            made[ours] = keys[name]
    return made


def _flag(value: str) -> bool:
    """Raises: ValueError for anything but true, false and nothing."""
    if value.lower() not in ("", "true", "false"):
        raise ValueError(f"{value!r} is neither true nor false.")
    return value.lower() == "true"
