"""Storage that fails in turn as a test tells it to."""

from __future__ import annotations

import io

DOWN = OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 7, Could not connect to server")


class Storage:
    """In the place of a source's file system: fails in turn as told, then gives `data`."""

    def __init__(self, data: bytes, *errors: OSError) -> None:
        self.data, self.errors, self.asked = data, list(errors), 0

    def open_input_stream(self, path: str) -> io.BytesIO:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return io.BytesIO(self.data)
