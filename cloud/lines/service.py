"""Lines: made once, asked for often. Reference images are checked, stored as blobs, and belong to one set for ever.

An image or a group that is in the gate's set cannot enter the memory and the other way round: what is trained on may
not judge. `active_from` lets the gate's images of a coming product be imported early and count from a moment on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from sqlalchemy.orm import Session

from cloud import audit
from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import Line, Reference
from cloud.http import Problem, not_found
from cloud.lines import repository
from cloud.lines.ports import Blobs
from cloud.lines.schemas import (
    ImportResult,
    LineSpec,
    LineView,
    NewClass,
    Purpose,
    ReferenceCounts,
    ReferenceImage,
    ReferenceItem,
    check_classes,
)
from models.contracts.base import sha256_hex
from models.runtime.image import Unreadable, decode_image


class LineService:
    """Lines and their reference images."""

    def __init__(self, *, begin: Begin, reads: Begin, now: NowUs, blobs: Blobs) -> None:
        self._begin, self._reads, self._now, self._blobs = begin, reads, now, blobs

    def create(self, spec: LineSpec, *, actor: str = "system") -> LineView:
        """Make a line. The same request twice makes one line.

        Raises:
            Problem: 409, a line of that name is there and says something else.
        """
        with self._begin() as session:
            present = repository.get(session, spec.name)
            if present is not None:
                if LineSpec.model_validate(repository.view(present).model_dump(exclude={"created_at"})) == spec:
                    return repository.view(present)
                raise Problem(
                    409, "line_exists", f"There is a line {spec.name!r} with other settings; choose a new name."
                )
            row = Line(**spec.model_dump(mode="json"), created_at=self._now())
            session.add(row)
            session.flush()
            audit.record(
                session, at=self._now(), actor=actor, action="line.created", subject=spec.name,
                evidence={"classes": row.classes, "cameras": row.cameras, "hour_s": row.hour_s},
            )  # fmt: skip
            return repository.view(row)

    def add_class(self, line: str, new: NewClass, *, actor: str) -> LineView:
        """Append a class; the next training run learns it. Classes are never renamed or removed.

        Raises:
            Problem: 404 without such a line, 409 when the name is taken.
        """
        with self._begin() as session:
            row = self._row(session, line)
            classes = [NewClass.model_validate(one) for one in row.classes]
            try:
                check_classes([*classes, new])
            except ValueError as fault:
                raise Problem(409, "bad_class", str(fault)) from fault
            row.classes = [*row.classes, new.model_dump(mode="json")]
            audit.record(
                session, at=self._now(), actor=actor, action="line.class_added", subject=line,
                evidence=new.model_dump(mode="json"),
            )  # fmt: skip
            return repository.view(row)

    def get(self, line: str) -> LineView:
        """The line.

        Raises:
            Problem: 404.
        """
        with self._reads() as session:
            return repository.view(self._row(session, line))

    def all(self) -> list[LineView]:
        """Every line by name."""
        with self._reads() as session:
            return [repository.view(row) for row in repository.every(session)]

    def _row(self, session: Session, line: str) -> Line:
        row = repository.get(session, line)
        if row is None:
            raise not_found("line", line)
        return row

    def add_references(
        self, line: str, purpose: Purpose, items: Iterable[ReferenceItem], *, active_from: int = 0,
        actor: str = "system",
    ) -> ImportResult:  # fmt: skip
        """Import labelled images; all of them or none. Importing the same images again changes nothing.

        Args:
            active_from: microseconds since 1970; before that moment the images are not part of the set.

        Raises:
            Problem: 404 without such a line; 422 for an unreadable image or an unknown label; 409 when an image or its
                group is in the line's other set, or the image is here with another label.
        """
        wanted = list(items)
        classes = {spec.name for spec in self.get(line).class_specs}
        digests = [self._checked(item, classes, index) for index, item in enumerate(wanted)]
        for item in wanted:  # blobs first: a row never names bytes that are not there
            self._blobs.add(item.data)
        with self._begin() as session:
            self._refuse_leaks(session, line, purpose, wanted)
            known = repository.known_digests(session, line)
            added = 0
            for digest, item in zip(digests, wanted, strict=True):
                if digest in known:
                    self._same_or_problem(known[digest], item, purpose)
                    continue
                known[digest] = row = Reference(
                    line=line, purpose=purpose, sha256=digest, label=item.label, domain=item.domain,
                    group=item.group, must_catch=item.must_catch, active_from=active_from, created_at=self._now(),
                )  # fmt: skip
                session.add(row)
                added += 1
            audit.record(
                session, at=self._now(), actor=actor, action="line.references_added", subject=line,
                evidence={"purpose": purpose, "added": added, "known": len(wanted) - added, "active_from": active_from},
            )  # fmt: skip
        return ImportResult(added=added, known=len(wanted) - added)

    @staticmethod
    def _checked(item: ReferenceItem, classes: set[str], index: int) -> str:
        name = f"Image {item.source if item.source is not None else index}"
        if item.label not in classes:
            known = ", ".join(sorted(classes))
            raise Problem(422, "unknown_label", f"{name} is labelled {item.label!r}; the line has: {known}.")
        try:
            decode_image(item.data)
        except Unreadable as fault:
            raise Problem(422, "unreadable_image", f"{name} cannot be used: {fault}.") from fault
        return sha256_hex(item.data)

    @staticmethod
    def _refuse_leaks(session: Session, line: str, purpose: Purpose, items: Sequence[ReferenceItem]) -> None:
        groups = {item.group for item in items if item.group is not None}
        if leaked := repository.groups_elsewhere(session, line, purpose, groups):
            raise Problem(
                409, "group_in_both_sets",
                f"Group {min(leaked)!r} is in the line's other set already: what is trained on may not judge.",
            )  # fmt: skip

    @staticmethod
    def _same_or_problem(row: Reference, item: ReferenceItem, purpose: Purpose) -> None:
        if row.purpose != purpose:
            raise Problem(
                409, "image_in_both_sets", f"Image {row.sha256[:12]} is in the {row.purpose} set: it cannot be in both."
            )
        if row.label != item.label:
            raise Problem(
                409, "label_differs", f"Image {row.sha256[:12]} is here as {row.label!r}, not as {item.label!r}."
            )

    def references(self, line: str, purpose: Purpose, as_of: int | None = None) -> list[ReferenceImage]:
        """The set as it is at `as_of` (now when left out), in import order."""
        with self._reads() as session:
            return repository.references(session, line, purpose, self._now() if as_of is None else as_of)

    def counts(self, line: str, purpose: Purpose, as_of: int | None = None) -> ReferenceCounts:
        """Images per class and per domain.

        Raises:
            Problem: 404 without such a line.
        """
        self.get(line)
        images = self.references(line, purpose, as_of)
        return ReferenceCounts(
            purpose=purpose,
            total=len(images),
            by_label=dict(Counter(image.label for image in images)),
            by_domain=dict(Counter(image.domain or "" for image in images)),
        )
