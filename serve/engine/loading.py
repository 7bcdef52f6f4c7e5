"""From what a workspace published to a version that is fit to answer: found, brought near, checked, loaded, tried.

All of it takes seconds or minutes, in a thread, beside the version that answers meanwhile.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.node.cache import NodeCache
from retrieval.artifacts.node.triple import on_this_node
from retrieval.artifacts.published import CURRENT, Pair, Published, history
from serve.engine.selftest import Unfit, check_answers, check_files
from serve.engine.version import Version
from serve.parts.fanout import Parts
from serve.parts.messages import IndexName, PartLost
from serve.settings import ServeArgs

logger = logging.getLogger(__name__)

Batched = Callable[[int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a workspace publishes. digest: of the file that says so. published: what it says, or why that is nothing."""

    digest: str
    published: Published | Unfit


@dataclass(frozen=True, kw_only=True, slots=True)
class First:
    """What a replica starts with. seen: digest of what was published then. why_not: why it is not that, or empty."""

    version: Version
    seen: str
    why_not: str


def look(workspace: Folder) -> Seen | None:
    """What is published now; None if nothing is. Raises: OSError if storage cannot be reached."""
    if not workspace.exists(CURRENT):
        return None
    digest = hashlib.sha256(workspace.read_bytes(CURRENT)).hexdigest()
    try:
        return Seen(digest=digest, published=history(workspace)[0])
    except ValueError as error:
        return Seen(digest=digest, published=Unfit(str(error)))


def load(
    args: ServeArgs, published: Published, batched: Batched = lambda num: None, parts: Parts | None = None
) -> Version:
    """A published version, ready to answer.

    Args: batched: told the size of every batch. parts: who hold the index; None: it is opened here.

    Raises: Unfit if it must not; OSError if storage cannot be reached just now.
    """
    with ExitStack() as held:
        try:
            pair = Pair.of(Folder.of(args.workspace), published)
            here = parts is None
            kept = on_this_node(pair, _cache(args), also_local=args.cache_local, with_shards=here)
            near = held.enter_context(kept)
            if args.check_files:
                check_files(near, with_shards=here)
            shards = None if parts is None else parts.open(IndexName(pair.index.uri, pair.index_fingerprint))
            if shards is not None:
                held.callback(shards.close)
            version = Version.load(args, near, batched, shards)
            version.published = published
        except (Unfit, OSError):
            raise
        except Exception as error:
            raise _unfit(error) from error
        version.closing.callback(held.pop_all().close)
    try:
        check_answers(version)
    except Exception as error:
        version.close()
        if isinstance(error, Unfit | OSError):
            raise
        raise _unfit(error) from error
    return version


def load_first(args: ServeArgs, batched: Batched = lambda num: None, parts: Parts | None = None) -> First:
    """What a replica starts with: the current version, or the newest before it that is fit, as the replicas that are up
    would go on answering from the one they have.

    Args: see `load`.

    Raises: ValueError if none is; PartLost if a part of the index is away, for then none can be.
    """
    seen = look(Folder.of(args.workspace))
    current, kept = history(Folder.of(args.workspace))
    before = kept[: [one.version for one in kept].index(current.version)]
    why = ""
    for one in [current, *reversed(before)]:
        try:
            version = load(args, one, batched, parts)
            return First(version=version, seen="" if seen is None else seen.digest, why_not=why)
        except PartLost:
            raise
        except (Unfit, OSError) as error:
            why = why or str(error)
            logger.warning("version %s is refused: %s", one.version, error)
    raise ValueError(f"No version of {args.workspace} can be served. The current one, {current.version}: {why}")


def _cache(args: ServeArgs) -> NodeCache:
    return NodeCache.of_node(args.cache, args.cache_gb)


def _unfit(error: Exception) -> Unfit:
    """What the library says is for people; of anything else the log has the stack."""
    if isinstance(error, ValueError):
        return Unfit(str(error))
    logger.error("a version fails while it is loaded", exc_info=error)
    return Unfit(f"It fails while it is loaded ({type(error).__name__}); the log says more.")
