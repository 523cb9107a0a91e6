"""The page at `/`: a chat with the thought, the verdict and the rules, base and defended side by side, and the policy.

`deep-chat.js` is the web component deep-chat 2.4.2 as it is published, with its licence beside it; the rest is ours.
The page loads nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources

from fastapi import APIRouter, Request, Response

from forethought.policy import Policy
from forethought.server.errors import ApiError

_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "deep-chat.js": "text/javascript; charset=utf-8",
    "deep-chat.LICENSE": "text/plain; charset=utf-8",
}


def page_router(policy: Policy, admit: Callable[[Request], Awaitable[object]]) -> APIRouter:
    """Routes of the page. Its files are read once, by name: no path that a caller writes reaches the disk."""
    folder = resources.files("forethought").joinpath("server", "page")
    files = {name: folder.joinpath(name).read_bytes() for name in _TYPES}
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(files["index.html"], media_type=_TYPES["index.html"])

    @router.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in files:
            raise ApiError(404, "There is no such file")
        return Response(files[name], media_type=_TYPES[name], headers={"Cache-Control": "max-age=3600"})

    @router.get("/v1/policy", tags=["operations"])
    async def rules(request: Request) -> dict[str, object]:
        """The policy that requests are held against."""
        await admit(request)
        held = [rule.model_dump(include={"id", "title", "description"}) for rule in policy.rules]
        return {"name": policy.name, "version": policy.version, "hash": policy.hash, "rules": held}

    return router
