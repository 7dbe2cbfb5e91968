"""Events on their way, and those that were set aside, that hold the entity (production: a stream on Redis)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from ml_platform.forgetting.places import Held
from ml_platform.forgetting.subject import Subject
from ml_platform.serving.consumer import json_row
from ml_platform.serving.events import RowReader
from ml_platform.spec import RequestRefused
from ml_platform.spec.entities import holds, recognised
from ml_platform.stores.event_stream_purge import Sent, StreamPurge
from ml_platform.stores.texts import Words

_EVER = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True)
class Messages:
    """Both streams; a row that is none of its table's is judged by its text."""

    title: ClassVar[str] = "events on their way"
    streams: StreamPurge
    subject: Subject
    words: Words

    def held(self) -> Iterator[Held]:
        """See ``Place.held``."""
        for stream, what in ((self.streams.stream, "events on their way"), (self.streams.dead, "dead letters")):
            count = len(self.streams.holding(stream, self._chosen))
            if count:
                yield Held(place=f"Redis, {stream}", count=count, what=what)

    def purge(self) -> None:
        """See ``Place.purge``."""
        for stream in (self.streams.stream, self.streams.dead):
            self.streams.drop(stream, self._chosen)

    def _chosen(self, message: Sent) -> bool:
        texts = [message.row.decode(errors="replace"), message.reason]
        return any(self.words.found(texts)) or self._holds(message)

    def _holds(self, message: Sent) -> bool:
        table = self.subject.project.tables.get(message.table)
        told = recognised(self.subject.project, table.name).get(self.subject.entity.name) if table else None
        if table is None or not told:
            return False
        reader = RowReader(table, _EVER)
        try:
            rows = reader.frame([reader.read(json_row(message.row, ""), "")])
        except RequestRefused:
            return False
        return not rows.filter(holds(told, [self.subject.entity.text])).is_empty()
