"""What the query service answers with: a collection, a model and an index that were made from each other."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import read_manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One version of what the service answers with. Small: it names folders and fingerprints, and loads nothing."""

    workspace: Folder
    collection: Folder
    model: Folder
    index: Folder
    collection_fingerprint: str
    model_fingerprint: str
    index_fingerprint: str

    @classmethod
    def open(cls, workspace: str) -> Pair:
        """The pair that the workspace's CURRENT.json points at.

        Raises: ValueError if nothing is published there, a folder is not sealed, a folder is not the one that was
            published, or the index was made with another model or collection.
        """
        root = Folder.of(workspace)
        folders = read_current(root)
        published = root.read_json(CURRENT)["fingerprints"]
        seals = {kind: read_manifest(folders[kind], kind) for kind in ("collection", "model", "index")}
        for kind, seal in seals.items():
            if seal.fingerprint != published[kind]:
                raise ValueError(
                    f"{folders[kind]} has fingerprint {seal.fingerprint[:12]}, but {root} published the {kind} "
                    f"{published[kind][:12]}: it was replaced since. Run the pipeline again to publish a matching set."
                )
        for kind in ("model", "collection"):
            made_with = seals["index"].inputs.get(kind)
            if made_with != seals[kind].fingerprint:
                raise ValueError(
                    f"The index {folders['index']} was made with {kind} {str(made_with)[:12]}, but the {kind} at "
                    f"{folders[kind]} is {seals[kind].fingerprint[:12]}. Scores between them mean nothing: build the "
                    f"index again."
                )
        return cls(
            workspace=root,
            collection=folders["collection"],
            model=folders["model"],
            index=folders["index"],
            collection_fingerprint=seals["collection"].fingerprint,
            model_fingerprint=seals["model"].fingerprint,
            index_fingerprint=seals["index"].fingerprint,
        )


CURRENT = "CURRENT.json"


def publish(workspace: Folder, *, collection: Folder, model: Folder, index: Folder) -> None:
    """Point the workspace's CURRENT.json at a matching (collection, model, index), for the query service.

    Paths are kept relative to the workspace, so that it can be copied elsewhere whole.

    Raises: ValueError if the three were not made from each other.
    """
    seals = {
        "collection": read_manifest(collection, "collection"),
        "model": read_manifest(model, "model"),
        "index": read_manifest(index, "index"),
    }
    for name in ("collection", "model"):
        made_with = seals["index"].inputs.get(name)
        if made_with != seals[name].fingerprint:
            raise ValueError(
                f"The index {index} was made with {name} {str(made_with)[:12]}, not with "
                f"{seals[name].fingerprint[:12]} at {collection if name == 'collection' else model}. Build it again."
            )
    folders = {"collection": collection, "model": model, "index": index}
    relative = {name: folder.uri.removeprefix(workspace.uri + "/") for name, folder in folders.items()}
    fingerprints = {name: manifest.fingerprint for name, manifest in seals.items()}
    workspace.write_json(CURRENT, {"paths": relative, "fingerprints": fingerprints})


def read_current(workspace: Folder) -> dict[str, Folder]:
    """The published folders: {"collection": ..., "model": ..., "index": ...}.

    Raises: ValueError if nothing is published there yet.
    """
    if not workspace.exists(CURRENT):
        raise ValueError(
            f"{workspace} has no {CURRENT}: no pipeline has finished there. "
            f"Run `python -m ray_jobs.pipeline faces --workspace {workspace}` first."
        )
    paths = workspace.read_json(CURRENT)["paths"]
    return {
        name: Folder(path) if "://" in path or path.startswith("/") else workspace / path
        for name, path in paths.items()
    }
