"""The form of the search page: query, filters and options, read from fields and addresses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import ImmutableMultiDict

from data_prep.errors import InputError
from rmgl_jax.gallery.entries import Filters

TOPS = (10, 20, 50, 100)
"""Numbers of results to choose from."""
LAST_PAGE = 300
"""The last page of entries: the engine counts through all entries before a page."""
_MAX_TEXT = 200  # characters of a field


@dataclass(frozen=True)
class SearchForm:
    """Query, filters and options of a search."""

    id: str = ""
    """Entry of the gallery that is the query."""
    upload: str = ""
    """Upload that is the query, if `id` is empty."""
    cameras: tuple[str, ...] = ()
    """Cameras of the results; none chosen are all."""
    other_cameras: bool = False
    """Leave out the query's own camera."""
    after: float | None = None
    before: float | None = None
    """Time range of the results, in seconds since 1970."""
    labels: tuple[str, ...] = ()
    top: int = 20
    """Number of results."""
    rerank: bool = False
    expand: bool = False
    page: int = 1
    """Page of the entries to choose from."""

    @property
    def is_filtered(self) -> bool:
        """True if filters leave out a part of the gallery."""
        time = self.after is not None or self.before is not None
        return bool(self.cameras or self.labels or time or self.other_cameras)

    @property
    def is_default(self) -> bool:
        """True if no filter or option was changed."""
        return replace(self, id="", upload="", page=1) == SearchForm()

    def filters(self, camera: str = "") -> Filters:
        """Filters of the search, for a query of the given camera."""
        return Filters(
            cameras=self.cameras,
            not_cameras=(camera,) if self.other_cameras and camera else (),
            after=self.after,
            before=self.before,
            labels=self.labels,
        )

    def query_string(self, **changes: Any) -> str:
        """The form with some changes, as the query string of an address."""
        form = replace(self, **changes)
        pairs = [("id", form.id), ("upload", form.upload)]
        pairs += [("camera", camera) for camera in form.cameras]
        pairs += [("after", time_field(form.after)), ("before", time_field(form.before))]
        pairs += [("labels", ", ".join(form.labels))]
        pairs += [("top", "" if form.top == SearchForm.top else str(form.top))]
        pairs += [("page", "" if form.page == 1 else str(form.page))]
        for name in ("other_cameras", "rerank", "expand"):
            pairs += [(name, "1" if getattr(form, name) else "")]
        return urlencode([(name, value) for name, value in pairs if value])


def parse_form(fields: ImmutableMultiDict[str, Any], cameras: Sequence[str]) -> SearchForm:
    """Reads the fields of a form or an address.

    Args:
        fields: the values.
        cameras: cameras of the gallery.

    Raises:
        InputError: a value is not one that the form offers.
    """

    def text(name: str) -> str:
        value = fields.get(name) or ""
        if not isinstance(value, str) or len(value) > _MAX_TEXT:
            raise InputError(f"The field {name} must be text of at most {_MAX_TEXT} characters.")
        return value.strip()

    chosen = tuple(dict.fromkeys(fields.getlist("camera")))
    if not {*chosen} <= {*cameras}:
        raise InputError("The gallery has no such camera.")
    after, before = _time(text("after")), _time(text("before"))
    if after is not None and before is not None and after >= before:
        raise InputError("The time range is empty: it must end after its start.")
    return SearchForm(
        id=text("id"),
        upload=text("upload"),
        cameras=chosen,
        other_cameras=bool(text("other_cameras")),
        after=after,
        before=before,
        labels=tuple(filter(None, map(str.strip, text("labels").split(",")))),
        top=_number(text("top"), SearchForm.top, max(TOPS)),
        rerank=bool(text("rerank")),
        expand=bool(text("expand")),
        page=_number(text("page"), 1, LAST_PAGE),
    )


def time_field(time: float | None) -> str:
    """The value of an input of type datetime-local, in UTC; empty for None."""
    if time is None:
        return ""
    return datetime.fromtimestamp(time, UTC).replace(tzinfo=None).isoformat(timespec="seconds")


def _time(text: str) -> float | None:
    if not text:
        return None
    try:
        # Browsers leave out the seconds if they are zero.
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError("A time must be a date and a time, as 2026-01-31T13:45.") from error
    if moment.tzinfo is not None:
        raise InputError("Times are in UTC; leave out the offset.")
    return moment.replace(tzinfo=UTC).timestamp()


def _number(text: str, default: int, largest: int) -> int:
    if not text:
        return default
    # Only digits: int() also takes spaces, signs and underscores.
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= largest):
        raise InputError(f"A number must be from 1 to {largest:,}.")
    return int(text)
