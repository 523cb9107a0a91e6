"""Errors in the shape that OpenAI's clients read. They never quote a prompt or a key."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from forethought.errors import ConfigError, InputError, ModelError

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(HTTPException):
    """What a request is answered with in place of a response."""

    def __init__(
        self, status: int, message: str, code: str = "", param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(status, message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_s = retry_after_s
        """Seconds after which to ask again, where that may help."""

    def response(self) -> JSONResponse:
        """As clients read it."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(max(1, round(self.retry_after_s)))}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": self.body()}, self.status, headers)

    def body(self) -> dict[str, str | None]:
        """The error object."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code or None}


def of(error: Exception) -> ApiError:
    """What an error of the model or of its input is to a client."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputError):
        code = "context_length_exceeded" if "context" in error.rule else ""
        return ApiError(400, f"{error.rule}. {error.fix}", code, "messages")
    if isinstance(error, ModelError):
        return ApiError(503, f"The model can't be asked: {error.rule}", "model_unavailable", retry_after_s=5)
    return ApiError(500, "The server failed at this request", "internal_error")


def add_handlers(app: FastAPI) -> None:
    """Makes every error of the app one of this shape."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        return of(error).response()

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"] if step != "body")
        return ApiError(400, f"{place or 'The body'}: {first['msg']}", "invalid_value", place or None).response()

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return ApiError(error.status_code, str(error.detail)).response()

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    for kind in (ApiError, InputError, ConfigError, ModelError):
        app.add_exception_handler(kind, known)
