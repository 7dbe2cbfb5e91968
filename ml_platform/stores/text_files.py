"""Texts in files that nobody reads by columns: where they name an entity, and replaced there."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_platform.stores.sqlite_files import is_sqlite
from ml_platform.stores.texts import Words

_DRAFT = ".forgetting"  # how a file ends that is about to take another's place


@dataclass(frozen=True)
class TextFiles:
    """Every text under a folder, but for the folders and files (relative paths) of ``without``."""

    folder: Path
    without: frozenset[str]

    def holding(self, words: Words) -> list[Path]:
        """The files that name what is looked for."""
        return [path for path, text in self._texts() if words.found([text])[0]]

    def replace(self, words: Words) -> None:
        """Put the token in their place; a file is exchanged whole or not at all."""
        for left in self.folder.rglob(f"*{_DRAFT}"):
            left.unlink()  # by one that was killed
        for path, text in self._texts():
            new = words.replaced([text])[0]
            if new != text:
                replace_text(path, new.encode())

    def _texts(self) -> Iterator[tuple[Path, str]]:
        for path in sorted(self.folder.rglob("*")) if self.folder.is_dir() else ():
            if path.is_file() and not path.is_symlink() and not self._left_alone(path) and not is_sqlite(path):
                try:
                    yield path, path.read_bytes().decode()
                except UnicodeDecodeError:
                    continue  # no text; what its bytes hold is looked for when all is done

    def _left_alone(self, path: Path) -> bool:
        place = path.relative_to(self.folder)
        return any(str(each) in self.without for each in (place, *place.parents))


def replace_text(path: Path, content: bytes) -> None:
    """Exchange a file's content, whole or not at all; who may read it stays."""
    draft = path.with_name(f"{path.name}{_DRAFT}")
    draft.write_bytes(content)
    draft.chmod(path.stat().st_mode)
    draft.replace(path)
