"""Everything that was uploaded as one file, for whoever keeps copies, and put back from it."""

import re
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path

import orjson

from rag import durable
from rag.documents.records import ID

_NAME = re.compile(rf"{ID.pattern}/(?:about\.json|\d{{1,9}}\.[a-z]{{1,5}})")


def write(folder: Path, copy: Path) -> bool:
    """Write the documents in `folder` into the new file `copy`; False, and no file, where there are none.

    A document that is removed or replaced meanwhile is there as it was, as it is then, or not at all.
    """
    found = sorted(path for path in folder.glob("*/about.json") if ID.fullmatch(path.parent.name))
    if not found:
        return False
    copy.touch(mode=0o600)
    with tarfile.open(copy, "w") as archive:
        for about in found:
            with suppress(FileNotFoundError, ValueError, KeyError):
                content = about.read_bytes()
                record = orjson.loads(content)
                if record["status"] == "removed":
                    continue
                original = about.parent / f"{record['version']}{Path(record['name']).suffix.lower()}"
                with suppress(FileNotFoundError), original.open("rb") as file:
                    member = archive.gettarinfo(arcname=f"{about.parent.name}/{original.name}", fileobj=file)
                    archive.addfile(member, file)
                # Last: a document that is known has its original, where that is kept.
                archive.add(about, arcname=f"{about.parent.name}/about.json")
    return True


def put_back(copy: Path, folder: Path) -> None:
    """Unpack into `folder`, which must not exist yet. Raises ValueError for a copy that `write` did not make."""
    staged = folder.with_name(f".{folder.name}.restoring")
    shutil.rmtree(staged, ignore_errors=True)
    (staged / "queue").mkdir(parents=True, mode=0o700)
    staged.chmod(0o700)
    with tarfile.open(copy) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() and _NAME.fullmatch(member.name) else None
            if content is None:
                raise ValueError(f"{member.name!r} does not belong there")
            path = staged / member.name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.touch(mode=0o600)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
            durable.sync(path)
    for about in staged.glob("*/about.json"):
        # What was not live yet when it was copied is worked on again.
        if orjson.loads(about.read_bytes())["status"] not in ("live", "failed"):
            (staged / "queue" / about.parent.name).touch(mode=0o600)
    staged.rename(folder)
    durable.sync(folder.parent)
