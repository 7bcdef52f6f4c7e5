"""What an evaluation is told to compare. No heavy library is imported."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.manifest import Manifest, check_made_from, read_manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """One side of a comparison. Without an index, an exact one is made in memory."""

    name: str
    model: Folder
    embeddings: Folder
    index: Folder | None = None

    @classmethod
    def parse(cls, text: str) -> System:
        """NAME=MODEL,EMBEDDINGS or NAME=MODEL,EMBEDDINGS,INDEX."""
        name, equals, rest = text.partition("=")
        folders = rest.split(",")
        if not equals or not name or len(folders) not in (2, 3) or not all(folders):
            raise ValueError(f"Cannot read system '{text}'. Write NAME=MODEL,EMBEDDINGS,INDEX, three folders.")
        model, embeddings, *index = (Folder.of(folder) for folder in folders)
        return cls(name=name, model=model, embeddings=embeddings, index=index[0] if index else None)

    def fingerprints(self, collected: Manifest) -> dict[str, str]:
        """What it is made of.

        Raises: ValueError if its parts, or they and the collection, do not belong together.
        """
        seals = {
            "model": read_manifest(self.model, "model"),
            "embeddings": read_manifest(self.embeddings, "embeddings"),
        }
        whose = f"{self.embeddings} of system '{self.name}'"
        check_made_from(whose, seals["embeddings"], "model", seals["model"].fingerprint)
        check_made_from(whose, seals["embeddings"], "collection", collected.fingerprint)
        if self.index is not None:
            seals["index"] = read_manifest(self.index, "index")
            whose = f"{self.index} of system '{self.name}'"
            check_made_from(whose, seals["index"], "embeddings", seals["embeddings"].fingerprint)
        return {f"{self.name}.{kind}": manifest.fingerprint for kind, manifest in seals.items()}
