"""A model and an index that belong together, with the collection the index points into."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.artifacts import CURRENT, Folder, read_current, read_manifest


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
