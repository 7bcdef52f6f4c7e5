"""Whose fault an error is, by what stores and file systems really say: each text below was seen."""

from __future__ import annotations

import errno
import pickle

import cv2
import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.storage.failures import Kind, Outage, is_of_one_file, kind_of, outage

HEAD = "When reading information for key 'x/a.bin' in bucket 'photos': AWS Error"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("transient", OSError(f"{HEAD} UNKNOWN (HTTP status 503) during HeadObject operation: No response body.")),
        ("transient", OSError(f"{HEAD} SLOW_DOWN during ListObjectsV2 operation: Please reduce your request rate.")),
        (
            "transient",
            OSError(f"{HEAD} NETWORK_CONNECTION during HeadObject operation: curlCode: 7, Could not connect"),
        ),
        ("transient", OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 18, Transferred")),
        ("transient", OSError("google::cloud::Status(UNAVAILABLE: Permanent error in GetObjectMetadata)")),
        ("transient", OSError(errno.EIO, "Input/output error")),
        ("transient", OSError(errno.ESTALE, "Stale file handle")),
        ("transient", TimeoutError("timed out")),
        ("transient", ConnectionResetError("reset")),
        ("credentials", OSError(f"{HEAD} ACCESS_DENIED during HeadObject operation: No response body.")),
        ("credentials", OSError(f"{HEAD} UNKNOWN (HTTP status 400) during HeadObject operation: No response body.")),
        ("credentials", OSError("AWS Error UNKNOWN (HTTP status 400) during PutObject: ExceptionName: ExpiredToken")),
        ("credentials", OSError("AWS Error INVALID_ACCESS_KEY_ID during ListObjectsV2 operation: no such key")),
        ("credentials", OSError("google::cloud::Status(PERMISSION_DENIED: no)")),
        (
            "address",
            OSError("AWS Error NO_SUCH_BUCKET during PutObject operation: The specified bucket does not exist"),
        ),
        ("address", FileNotFoundError(2, "Bucket 'photos' not found")),
        ("address", OSError(f"{HEAD} UNKNOWN (HTTP status 301) during HeadObject operation: No response body.")),
        ("full", OSError(errno.ENOSPC, "No space left on device")),
        ("full", OSError(errno.EDQUOT, "Disk quota exceeded")),
        ("memory", MemoryError()),
        ("memory", OSError(errno.ENOMEM, "Cannot allocate memory")),
        ("memory", pa.ArrowMemoryError("malloc of size 1 failed")),
        (None, FileNotFoundError(2, "Path does not exist 'photos/a'")),
        (None, FileNotFoundError("gone")),
        (None, PermissionError(errno.EACCES, "Permission denied")),
        (None, IsADirectoryError(errno.EISDIR, "Is a directory")),
        (None, OSError("Couldn't deserialize thrift: TProtocolException: Invalid data")),
        (None, ValueError("AWS Error NETWORK_CONNECTION")),
        (None, KeyError("x")),
        (None, Outage("Storage does not answer: AWS Error")),
    ],
)
def test_whose_fault_it_is(kind: Kind | None, error: BaseException) -> None:
    assert kind_of(error) == kind


def test_a_graphics_card_or_opencv_without_memory_is_without_memory() -> None:
    import torch

    assert kind_of(torch.OutOfMemoryError("CUDA out of memory")) == "memory"
    with pytest.raises(cv2.error) as caught:
        cv2.resize(np.zeros((8, 8), np.uint8), (1 << 29, 1 << 29))  # 2^58 bytes
    assert kind_of(caught.value) == "memory"
    with pytest.raises(cv2.error) as caught:
        cv2.resize(np.zeros((0, 0), np.uint8), (2, 2))
    assert kind_of(caught.value) is None


def test_only_what_a_file_system_says_of_one_file_is_of_one_file() -> None:
    assert is_of_one_file(PermissionError("no")) and is_of_one_file(OSError(errno.ENAMETOOLONG, "File name too long"))
    assert not is_of_one_file(OSError(errno.EIO, "Input/output error")) and not is_of_one_file(OSError("AWS Error"))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("transient", "does not answer: reading a failed for 12 s"),
        ("credentials", "renewed"),
        ("address", "region"),
        ("full", "The disk is full on"),
        ("memory", "Memory ran out on"),
    ],
)
def test_an_outage_says_what_failed_and_how_to_go_on_in_one_line(kind: Kind, words: str) -> None:
    made = outage(OSError("one\n  two" + "x" * 400), kind, "reading a", 12.3)
    text = str(made)
    assert words in text and "one two" in text and "\n" not in text and len(text) < 800
    again = pickle.loads(pickle.dumps(made))  # noqa: S301  as it comes from a worker
    assert type(again) is Outage and str(again) == text
    assert ("give the same command again" in text) == (kind != "address")
