"""What is taken for a photo."""

from pathlib import Path

import pytest

from serve.client.photos import NamedPhoto, named_photos, read_photo


def test_bytes_and_files(tmp_path: Path) -> None:
    path = tmp_path / "ada.jpg"
    path.write_bytes(b"photo")
    assert read_photo(b"photo") == read_photo(path) == read_photo(str(path)) == b"photo"
    given = [path, b"x", NamedPhoto("folder/b.jpg", b"y"), str(path)]
    assert named_photos(given) == [("ada.jpg", b"photo"), ("1", b"x"), ("folder/b.jpg", b"y"), ("ada.jpg", b"photo")]
    with pytest.raises(OSError, match="gone"):
        read_photo(tmp_path / "gone.jpg")
