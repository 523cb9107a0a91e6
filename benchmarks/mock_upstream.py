"""An upstream that costs nothing: every verdict is `comply`, every token of an answer tells when it was said.

python benchmarks/mock_upstream.py MODEL PORT
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from forethought.model import run_model, trained_folder
from forethought.models.weights import load_tokenizer
from forethought.reasoning import VERDICT_ANCHOR

TOKEN_EVERY_S = 0.25
"""In the mean: half as long to half as long again, so that streams do not fall into step."""


def make(model: str) -> FastAPI:
    """The app."""
    from pathlib import Path

    run = run_model(Path(model))
    tokenizer = load_tokenizer(run.base if run is not None else str(trained_folder(model)))

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    thought = ids(f"Intent: ask something.\n{VERDICT_ANCHOR}") + ids(" comply")[:1]
    refuse, comply = ids(" refuse")[0], ids(" comply")[0]
    told = {f"token_id:{refuse}": -9.0, f"token_id:{comply}": -0.01}
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {}

    @app.post("/v1/completions", response_model=None)
    async def completions(request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        if body.get("stream"):
            return StreamingResponse(_spoken(body["max_tokens"]), media_type="text/event-stream")
        logprobs = {"tokens": [], "top_logprobs": [told] * len(thought)}
        choice = {"text": "", "finish_reason": "stop", "token_ids": thought, "logprobs": logprobs}
        return JSONResponse({"choices": [choice]})

    return app


async def _spoken(n_tokens: int) -> AsyncIterator[str]:
    for number in range(n_tokens):
        if n_tokens > 2:
            await asyncio.sleep(TOKEN_EVERY_S * random.uniform(0.5, 1.5))
        finish = "length" if number == n_tokens - 1 else None
        choice = {"index": 0, "text": f" {time.monotonic():.6f}", "finish_reason": finish}
        yield f"data: {json.dumps({'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


if __name__ == "__main__":
    uvicorn.run(make(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
