"""The search page of a gallery: an ASGI application whose pages need no script."""

import functools
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import anyio
import jinja2
from anyio import to_thread
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from data_prep.errors import ExpectedError, InputError
from rmgl_jax import __version__
from rmgl_jax.gallery.access import LOOPBACK_NAMES, Access
from rmgl_jax.gallery.crops import Crop, read_crop
from rmgl_jax.gallery.entries import Entry, Match
from rmgl_jax.gallery.gallery import Gallery
from rmgl_jax.gallery.identify import identify, is_id
from rmgl_jax.gallery.page_results import (
    Query,
    about,
    make_result,
    query_of,
    result_to_json,
    split_results,
    time_text,
)
from rmgl_jax.gallery.same_person import DEFAULT_FPR, same_person_threshold
from rmgl_jax.gallery.search_form import LAST_PAGE, TOPS, SearchForm, parse_form, time_field
from rmgl_jax.gallery.uploads import MAX_BYTES, UploadStore, decode_upload, jpeg, limit_body
from rmgl_jax.page_templates import make_environment

PAGE_ENTRIES = 48
"""Entries to choose from on a page."""
_LARGE = (640, 640)  # width and height of the largest picture of an entry

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def make_app(
    gallery: Gallery, token: str | None = None, names: Collection[str] = LOOPBACK_NAMES
) -> ASGIApp:
    """Makes the application that serves the search page of a gallery.

    `GET /` shows the form and the entries, `POST /search` searches for the file of its field
    `image`, `GET /search?id=` for an entry, and `GET /image/ID` is the picture of an entry. A
    search answers with JSON if the client accepts only that. No page and no error names a path.

    Args:
        gallery: an open gallery.
        token: secret that every visitor must give; None serves everyone who reaches the server.
        names: host names under which the server answers.
    """
    page = SearchPage(gallery)
    routes = [
        Route("/", page.start),
        Route("/search", page.search, methods=["GET"]),
        Route("/search", page.search_upload, methods=["POST"]),
        Route("/image/{id}", page.image),
        Route("/style.css", page.style),
    ]
    app = Starlette(
        routes=routes,
        lifespan=page.lifespan,
        exception_handlers={
            HTTPException: page.http_error,
            InputError: page.input_error,
            Exception: page.bug,
        },
    )
    return Access(app, page.error, token, names)


class SearchPage:
    """Handlers of the search page. The event loop only waits: a thread does whatever takes time."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self.uploads = UploadStore()
        self.threshold = same_person_threshold(gallery)
        self.size: tuple[int, int] = gallery.model.config.model.image_size
        self.templates = _environment()
        self.templates.globals |= {
            "fpr": DEFAULT_FPR,
            "threshold": self.threshold,
            "tops": TOPS,
            "max_bytes": MAX_BYTES,
            "model": gallery.model,
            "version": __version__,
        }
        # One embedding or search at a time, which uses all cores; pictures need not wait for it.
        self._searching = anyio.CapacityLimiter(1)
        self._reading = anyio.CapacityLimiter(2)

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Compiles the network while the first page is shown."""

        async def warm_up() -> None:
            blank = Image.new("RGB", (self.size[1], self.size[0]))
            try:
                await self._run(self._searching, self.gallery.search, blank, 1)
            except ExpectedError as error:
                _log.warning("%s", error)

        async with anyio.create_task_group() as group:
            group.start_soon(warm_up)
            yield

    async def start(self, request: Request) -> Response:
        """The form, and the entries to choose from."""
        cameras = await self._ask(self.gallery.cameras)
        form = parse_form(request.query_params, cameras)
        offset = (form.page - 1) * PAGE_ENTRIES
        entries = await self._ask(
            self.gallery.entries, form.filters(), offset=offset, limit=PAGE_ENTRIES + 1
        )
        shown = [make_result(0, Match(entry, 0.0), None) for entry in entries]
        return self._render(
            "start.html.j2",
            form=form,
            cameras=cameras,
            count=await self._ask(self.gallery.__len__),
            entries=shown[:PAGE_ENTRIES],
            has_more=len(shown) > PAGE_ENTRIES,
            is_last=form.page == LAST_PAGE,
        )

    async def search(self, request: Request) -> Response:
        """Results for an entry of the gallery, or for an upload of before."""
        cameras = await self._ask(self.gallery.cameras)
        form = parse_form(request.query_params, cameras)
        if form.id:
            entry = await self._entry(form.id)
            picture = f"/image/{quote(entry.id)}" if os.path.isfile(entry.path) else ""
            return await self._results(
                request, form, cameras, form.id, Query(picture, entry.camera, entry)
            )
        if form.upload:
            upload = self.uploads.get(form.upload)
            if upload is None:
                raise HTTPException(404, "This upload is no longer kept; upload the image again.")
            return await self._results(request, form, cameras, upload.image, query_of(upload))
        return RedirectResponse("/", 303)

    async def search_upload(self, request: Request) -> Response:
        """Results for the uploaded file of the field `image`."""
        request = limit_body(request)
        async with request.form(max_files=1, max_fields=500, max_part_size=4096) as fields:
            cameras = await self._ask(self.gallery.cameras)
            form = parse_form(fields, cameras)
            file = fields.get("image")
            if not isinstance(file, UploadFile) or not (file.filename or file.size):
                raise InputError("No image was chosen; choose the file of a crop.")
            if (file.size or 0) > MAX_BYTES:
                raise HTTPException(413, f"The upload is larger than {MAX_BYTES:,} bytes.")
            encoded = await file.read()
        upload = await self._run(self._searching, decode_upload, encoded, self.size)
        form = replace(form, id="", upload=self.uploads.add(upload))
        return await self._results(request, form, cameras, upload.image, query_of(upload))

    async def image(self, request: Request) -> Response:
        """The picture of an entry; a drawing that says so if its file is missing."""
        entry = await self._entry(request.path_params["id"])
        try:
            content = await self._run(self._reading, _read_picture, entry)
        except (ExpectedError, OSError) as error:
            _log.warning("%s", error)
            missing = self.templates.get_template("missing.svg.j2").render()
            return Response(missing, 404, media_type="image/svg+xml")
        # The name is a digest of the content.
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(content, media_type="image/jpeg", headers=headers)

    async def style(self, _request: Request) -> Response:
        """The style sheet of all pages."""
        content = self.templates.get_template("search.css").render()
        return Response(content, media_type="text/css", headers={"Cache-Control": "max-age=60"})

    def error(self, request: Request, status: int, sentence: str) -> Response:
        """The page, or the JSON, of an error."""
        if _takes_json(request):
            return JSONResponse({"error": sentence}, status)
        return self._render("error.html.j2", status, sentence=sentence, code=status)

    async def http_error(self, request: Request, error: Exception) -> Response:
        """The page of an error that a handler or Starlette raised."""
        assert isinstance(error, HTTPException)
        sentence = {
            404: "There is no such page.",
            405: "This page does not take such a request.",
        }.get(error.status_code)
        # Starlette's own details are no sentences.
        detail = error.detail if error.detail.endswith(".") else sentence or f"{error.detail}."
        return self.error(request, error.status_code, detail)

    async def input_error(self, request: Request, error: Exception) -> Response:
        """The page of input that is not accepted."""
        return self.error(request, 400, str(error))

    async def bug(self, request: Request, _error: Exception) -> Response:
        """The page of a bug, whose traceback is in the terminal only."""
        return self.error(
            request, 500, "Something went wrong; the terminal of the server has the details."
        )

    async def _results(
        self,
        request: Request,
        form: SearchForm,
        cameras: Sequence[str],
        query: str | Image.Image,
        shown: Query,
    ) -> Response:
        """Searches, and shows or lists the results."""
        matches: list[Match] = await self._ask(
            self.gallery.search,
            query,
            # An entry is its own nearest neighbor, which is left out.
            form.top + bool(form.id),
            form.filters(shown.camera),
            rerank=form.rerank,
            expand=form.expand,
        )
        matches = [match for match in matches if match.entry.id != form.id][: form.top]
        results = [
            make_result(rank, match, self.threshold) for rank, match in enumerate(matches, 1)
        ]
        if _takes_json(request):
            return JSONResponse([result_to_json(result) for result in results])
        return self._render(
            "results.html.j2",
            form=form,
            cameras=cameras,
            query=shown,
            count=await self._ask(self.gallery.__len__),
            groups=split_results(results),
        )

    async def _entry(self, id: str) -> Entry:
        try:
            if not is_id(id):
                raise InputError(f"{id!r} is no id.")
            return await self._run(self._reading, self.gallery.entry, id)
        except ExpectedError as error:
            raise HTTPException(404, "The gallery has no crop with this id.") from error

    async def _ask(self, function: Callable[..., _T], *args: Any, **options: Any) -> _T:
        """Calls the gallery. Its errors may name paths, so that only the terminal shows them."""
        try:
            return await self._run(self._searching, function, *args, **options)
        except ExpectedError as error:
            _log.warning("%s", error)
            raise HTTPException(
                503, "The gallery cannot answer; the terminal of the server says why."
            ) from error

    async def _run(
        self,
        limiter: anyio.CapacityLimiter,
        function: Callable[..., _T],
        *args: Any,
        **options: Any,
    ) -> _T:
        call = functools.partial(function, *args, **options)
        return await to_thread.run_sync(call, limiter=limiter)

    def _render(self, name: str, status: int = 200, **values: Any) -> Response:
        return HTMLResponse(self.templates.get_template(name).render(values), status)


def _environment() -> jinja2.Environment:
    environment = make_environment("rmgl_jax.gallery")
    environment.filters |= {"time_field": time_field, "time_text": time_text, "about": about}
    return environment


def _read_picture(entry: Entry) -> bytes:
    """Reads the crop of an entry as a small JPEG, which has no metadata of the file.

    Raises:
        ExpectedError: the file is missing, damaged, or no longer the one that was added.
    """
    crop = Crop(Path(entry.path), entry.box)
    found = identify(crop)
    if isinstance(found, ExpectedError):
        raise found
    if found.id != entry.id:
        raise InputError(f"{entry.path} is no longer the file that was added.")
    return jpeg(read_crop(crop), _LARGE)


def _takes_json(request: Request) -> bool:
    accepted = request.headers.get("accept", "")
    return "application/json" in accepted and "text/html" not in accepted
