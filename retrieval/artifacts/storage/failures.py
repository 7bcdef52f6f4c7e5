"""Whose fault an error is. The one place that says so: a failure of the machines is never held against a photo.

    transient    storage or the network between, and it may come back: a reset, a timeout, 503
    credentials  they are wrong, have expired, or allow too little
    address      no such bucket, or it lies in another region
    full         a disk has no room, or its user's share of it
    memory       no more to be had
    None         not a failure of the machines: a file that is not there, a name too long, a fault of ours

Object stores tell by words alone (pyarrow raises a plain OSError for all of them), file systems by `errno`.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Literal

Kind = Literal["transient", "credentials", "address", "full", "memory"]

_BY_NUMBER: dict[int, Kind] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "full"),
    errno.ENOMEM: "memory",
}
_OF_A_FILE = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTEMPTY, errno.EXDEV, errno.EBADF, errno.EILSEQ),
)
"""What a file system says of one file; any other number (EIO, ESTALE, ETIMEDOUT, ...) it says of itself."""

_WORDS: tuple[tuple[Kind, str], ...] = (
    ("address", r"(?i)no_?such_?bucket|bucket '[^']*' not found|specified bucket does not exist"),
    ("address", r"(?i)HTTP status 301|permanent_?redirect|authorization_?header_?malformed"),
    ("credentials", r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID"),
    ("credentials", r"UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|REQUEST_EXPIRED|REQUEST_TIME_TOO_SKEWED"),
    ("credentials", r"(?i)Expired_?Token|Invalid_?Token\b|TokenRefreshRequired|RequestTimeTooSkewed|AccessDenied"),
    ("credentials", r"HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED|Could not (find|load) .*credentials"),
    # A refusal of a HEAD has no words with it; the store says only that it does not accept the request as it is.
    ("credentials", r"HTTP status 400\) during Head(Object|Bucket)"),
)
_OF_A_STORE = r"AWS Error|HTTP status|curlCode|google::cloud::Status|(?i:connection|timed? ?out)"
"""Words of an error that came from a store or the network, and says nothing that is known here: it may pass."""


class Outage(OSError):
    """Storage, credentials, a disk or memory failed, and waiting did not mend it. What is done stays done.

    The message is one sentence or two for whoever runs the job.
    """


def kind_of(error: BaseException) -> Kind | None:
    """The kind of a failure of the machines; None for any other error, also for an `Outage`: that was judged before."""
    if isinstance(error, Outage):
        return None
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _opencv_has_no_memory(error):
        return "memory"
    if not isinstance(error, OSError):
        return None
    for kind, words in _WORDS:
        if re.search(words, str(error)):
            return kind
    if error.errno is not None:
        return None if error.errno in _OF_A_FILE else _BY_NUMBER.get(error.errno, "transient")
    if isinstance(error, (TimeoutError, ConnectionError)):
        return "transient"
    # Others have no number either: what Parquet says of a damaged file, say.
    return "transient" if re.search(_OF_A_STORE, str(error)) else None


def is_of_one_file(error: OSError) -> bool:
    """Whether a file system says this of one file alone: that it is a folder, may not be read, or has an odd name."""
    return error.errno in _OF_A_FILE or isinstance(error, (PermissionError, IsADirectoryError, NotADirectoryError))


def _opencv_has_no_memory(error: BaseException) -> bool:
    return type(error).__module__ == "cv2" and "(-4:Insufficient memory)" in str(error)


def outage(error: BaseException, kind: Kind, what: str, waited: float = 0.0) -> Outage:
    """What ends a job. Args: what: was being done, "reading s3://..."; waited: seconds, in all tries together."""
    said = " ".join(str(error).split())
    said = f"{said[:300]}..." if len(said) > 300 else said or type(error).__name__
    again = "Nothing that is done is lost, and no photo was rejected for it: give the same command again"
    node = os.uname().nodename
    text = {
        "transient": f"Storage does not answer: {what} failed for {waited:.0f} s, at last with: {said}. {again} when "
        f"it is back. RETRIEVAL_PATIENCE=SECONDS waits longer.",
        "credentials": f"Storage does not accept the credentials, {what}: {said}. They are wrong, have expired or "
        f"allow too little. {again} once they are renewed.",
        "address": f"The address does not lead anywhere, {what}: {said}. Make the bucket, or correct its name, its "
        f"region (?region=...) or the endpoint.",
        "full": f"The disk is full on {node}, {what}: {said}. {again} when there is room.",
        "memory": f"Memory ran out on {node}, {what}: {said}. {again} with fewer workers on a node, or more memory.",
    }
    return Outage(text[kind])
