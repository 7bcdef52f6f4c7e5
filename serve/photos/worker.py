"""A process that looks at photos until the service is gone: `python -m serve.photos.worker FD CAPS`.

It has a socket and nothing else of the service: no store, no keys, no network address. What it decodes may crash it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

from serve.photos.framing import receive, send
from serve.photos.limits import Caps
from serve.photos.messages import Look, kind_from_json, seen_to_parts


def main(descriptor: int, caps: Caps) -> None:
    """Answers what comes in on the socket with this descriptor."""
    # Ctrl-C goes to the whole group; the service ends us when it has ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the photo
    connection = socket.socket(fileno=descriptor)
    from retrieval.images import pixels  # slow to load: after whatever else could fail
    from serve.photos.looking import Looker

    pixels.limit_threads(1)
    looker = Looker(caps)
    send(connection, {"ready": os.getpid()})
    _be_quiet()
    kinds: list[Look] = []
    while (message := receive(connection)) is not None:
        head, body = message
        if "learn" in head:
            kinds.append(Look(config=kind_from_json(head["learn"]), network=body if head["network"] else None))
            looker.learn(*kinds[-1].kind)
            send(connection, {"learnt": len(kinds)})
            continue
        known = kinds[head["kind"]]
        how = Look(config=known.config, network=known.network, faces=head["faces"], box=_box(head["box"]))
        # If the service is killed while a photo hangs here, nobody is left to kill us.
        signal.setitimer(signal.ITIMER_REAL, 2 * head["seconds"] + 1)
        seen, jpegs = seen_to_parts(looker(body, how))
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(connection, {**seen, "worked": time.process_time()}, jpegs)


def _be_quiet() -> None:
    """libjpeg and libpng tell stderr what is wrong with a photo: that is a stranger's text in our log."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _box(edges: Any) -> Any:
    return None if edges is None else tuple(edges)


if __name__ == "__main__":
    told = json.loads(sys.argv[2])
    main(int(sys.argv[1]), Caps(**{**told, "formats": tuple(told["formats"])}))
