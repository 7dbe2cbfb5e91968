"""A level of a categorical input taken out of a saved model; its place stays, so all others mean what they did."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ml_platform.training.blend import SHARES_FILE
from ml_platform.training.encoding import Encoding
from ml_platform.training.model import SCHEMA_FILE, text_digest


def forget_level(folder: Path, entity: str, text: str, token: str) -> None:
    """Put something that nobody asks with in the place of the entity's value, in a model's folder and its members'.

    Asked with the value afterwards, the model takes it for one that it never saw. token: the same for the same value,
    so that a second time changes nothing, and ends what was cut off between two files. A folder of an earlier format,
    or of a model without the entity, is left as it is.
    """
    path = folder / SCHEMA_FILE
    schema: dict[str, Any] = json.loads(path.read_text())
    levels = schema.get("encoding", {}).get("categories", {}).get(entity, [])
    nobody = _nobody(levels, token)
    if text in map(str, levels):
        schema["encoding"]["categories"][entity] = [nobody if str(level) == text else level for level in levels]
    members = sorted(member.parent for member in folder.glob(f"member-*/{SCHEMA_FILE}"))
    for member in members:
        forget_level(member, entity, text, token)
    if members and nobody in schema["encoding"]["categories"].get(entity, []):
        schema |= _blended_anew(folder, [_digests(member) for member in members])
    new = json.dumps(schema, indent=1)
    if new != path.read_text():
        path.write_text(new)


def _nobody(levels: list[Any], token: str) -> str | int:
    """A level of the type of the others."""
    numbers = bool(levels) and not isinstance(levels[0], str)
    return -int(token.rpartition("-")[2], 16) if numbers else token


def _digests(folder: Path) -> dict[str, str]:
    """As ``model.stored_digests``, though only the texts of the model may lie there."""
    schema = json.loads((folder / SCHEMA_FILE).read_text())
    inputs = Encoding.from_json(schema["encoding"]).as_json()
    return {"inputs": text_digest(json.dumps(inputs)), **schema.get("content", schema["sha256"])}


def _blended_anew(folder: Path, digests: list[dict[str, str]]) -> Mapping[str, Any]:
    """What the blend's schema says of its members, after these changed."""
    path = folder / SHARES_FILE
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({"shares": stored["shares"], "members": digests}, indent=1))
    content = text_digest(json.dumps(digests) + str(tuple(stored["shares"])))
    return {"sha256": {SHARES_FILE: sha256(path.read_bytes()).hexdigest()}, "content": {SHARES_FILE: content}}
