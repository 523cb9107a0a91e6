"""A server that speaks the part of vLLM's API that the gateway uses, with the weights of a local model behind it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from forethought.models.hidden_states import states_of
from forethought.models.local import LocalModel


class MockVllm:
    """Greedy, without a cache. `fails` calls are answered with 503 first; `breaks_off` ends streams in the middle;
    `layers` are those whose hidden states it gives, as our connector does."""

    def __init__(self, model: LocalModel, holds: Sequence[str] = ("base", "scot")) -> None:
        self.model, self.fails, self.breaks_off, self.holds = model, 0, False, holds
        self.layers: tuple[int, ...] = ()
        self.calls: list[dict[str, Any]] = []
        self.app = FastAPI()
        self.app.add_api_route("/v1/completions", self.completions, methods=["POST"], response_model=None)
        self.app.add_api_route("/health", self.health)
        self.app.add_api_route("/v1/models", self.models)

    async def health(self) -> dict[str, str]:
        return {}

    async def models(self) -> dict[str, Any]:
        return {"data": [{"id": name} for name in self.holds]}

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        self.calls.append(body)
        if body["model"] not in self.holds:
            return JSONResponse({"error": "no such model"}, 404)
        if self.fails:
            self.fails -= 1
            return JSONResponse({"error": "busy"}, 503)
        if len(body["prompt"]) + body["max_tokens"] > self.model.context_tokens:
            return JSONResponse({"error": "longer than the context"}, 400)
        made, told, finish = self._decode(body)
        text = self.model.tokenizer.decode(made, skip_special_tokens=True)
        if body.get("stream"):
            return StreamingResponse(self._stream(made, finish), media_type="text/event-stream")
        logprobs = {"tokens": [f"token_id:{one}" for one in made], "top_logprobs": told}
        ended = finish == "stop" and made[-1] in self.model.ends
        reason = "".join(body.get("stop", ())) if finish == "stop" and not ended else None
        choice = {"text": text, "finish_reason": finish, "stop_reason": reason, "token_ids": made, "logprobs": logprobs}
        asked = self.layers and (body.get("kv_transfer_params") or {}).get("states")
        return JSONResponse({"choices": [choice], "kv_transfer_params": self._states(body) if asked else None})

    def _states(self, body: dict[str, Any]) -> dict[str, Any]:
        found = states_of(self.model, [body["prompt"]], self.layers, body["model"] == "scot")
        together = b"".join(found[layer][0].tobytes() for layer in self.layers)
        return {"layers": list(self.layers), "states": base64.b64encode(together).decode()}

    @torch.inference_mode()
    def _decode(self, body: dict[str, Any]) -> tuple[list[int], list[dict[str, float]], str]:
        weights = self.model.model if body["model"] == "scot" else self.model.base_weights
        made: list[int] = []
        told: list[dict[str, float]] = []
        ends = self.model.ends
        while len(made) < body["max_tokens"]:
            logits = weights(input_ids=torch.tensor([body["prompt"] + made])).logits[0, -1].float()
            shares = logits.log_softmax(-1)
            made.append(int(logits.argmax()))
            told.append({f"token_id:{one}": float(shares[one]) for one in body.get("logprob_token_ids", ())})
            text = self.model.tokenizer.decode(made)
            if made[-1] in ends or any(stop in text for stop in body.get("stop", ())):
                return made, told, "stop"
        return made, told, "length"

    async def _stream(self, made: list[int], finish: str) -> AsyncIterator[str]:
        said = ""
        for n in range(1, len(made) + 1):
            text = self.model.tokenizer.decode(made[:n], skip_special_tokens=True)
            if text.endswith("\ufffd") and n < len(made):
                continue
            last = n == len(made)
            chunk = {"choices": [{"text": text[len(said) :], "finish_reason": finish if last else None}]}
            said = text
            yield f"data: {json.dumps(chunk)}\n\n"
            if self.breaks_off:
                return
        yield f"data: {json.dumps({'choices': [], 'usage': {'completion_tokens': len(made)}})}\n\n"
        yield "data: [DONE]\n\n"
