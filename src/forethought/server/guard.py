"""Decisions without an answer: `/v1/moderations`, `/v1/decisions`, and LiteLLM's guardrail contract."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from forethought.policy import Policy, Rule
from forethought.server import fields
from forethought.server.conversation import Item, Part, Turn, rendered, turns_of
from forethought.server.errors import ApiError
from forethought.server.records import Asked, Verdict
from forethought.server.run import Run

router = APIRouter()


class ModerationRequest(BaseModel):
    """Texts to judge."""

    input: str | list[str | Part]
    model: str | None = None


@router.post("/v1/moderations", response_model=None)
async def moderations(body: ModerationRequest, request: Request) -> Response:
    """The rules of the policy as categories, their scores such that 0.5 is the threshold."""
    given = [body.input] if isinstance(body.input, str) else body.input
    if any(isinstance(one, Part) for one in given):  # parts of one input, and not several inputs
        given = ["\n".join(one if isinstance(one, str) else one.written for one in given)]
    with Run(request, "modr") as run:
        settings, engine = run.server.settings, run.server.engine
        if not 1 <= len(given) <= settings.max_messages:
            raise ApiError(400, f"1 to {settings.max_messages} inputs are taken", "invalid_value", "input")
        asked = [_asked(run, [Turn(role="user", content=str(one))]) for one in given]
        judged = await _judged(run, asked)
        results = []
        for verdict, shares in judged:
            found = fields.moderation_result(verdict, engine.policy, engine.name, shares)
            del found["type"], found["model"]
            results.append({**found, "verdict": fields.verdict_object(verdict, run.caller)})
        return JSONResponse({"id": run.id, "model": engine.name, "results": results})


class Question(BaseModel):
    """What is asked about an input; predicates alone can be answered."""

    type: Literal["predicate", "choice", "score"]
    instructions: str | list[Part]
    name: str | None = None

    @property
    def said(self) -> str:
        """What it asks, as text; empty for what is none."""
        if isinstance(self.instructions, str):
            return self.instructions
        parts = [part for part in self.instructions if part.type in ("text", "input_text")]
        return "\n".join(part.written for part in parts) if len(parts) == len(self.instructions) else ""


class DecisionRequest(BaseModel):
    """Questions about an input."""

    model: str
    input: str | list[Item]
    questions: Annotated[list[Question], Field(min_length=1, max_length=400)]


@router.post("/v1/decisions", response_model=None)
async def decisions(body: DecisionRequest, request: Request) -> Response:
    """`refuse` and each rule as predicates, their probabilities such that 0.5 is the threshold; others are refused."""
    with Run(request, "dec") as run:
        engine = run.server.engine
        if body.model != engine.name:
            raise ApiError(404, "There is no such model here: see /v1/models", "model_not_found", "model")
        turns = turns_of(body.input)
        ((verdict, shares),) = await _judged(run, [_asked(run, turns)])
        found = fields.scores(verdict, engine.policy, shares)
        found["refuse"] = verdict.centred if verdict.centred is not None else float(verdict.refused)
        if verdict.refused:
            found["refuse"] = max(found["refuse"], 0.5)
        answers = []
        for question in body.questions:
            about = asked_about(question, engine.policy)
            answer: dict[str, Any] = {"type": "refusal"} if not about else {
                "type": "predicate", "probability": found[about]
            }  # fmt: skip
            answers.append({"name": question.name, **answer})
        said = {"model": engine.name, "answers": answers, "usage": fields.usage(verdict),
                "verdict": fields.verdict_object(verdict, run.caller)}  # fmt: skip
        return JSONResponse(said, headers=fields.headers(verdict))


def asked_about(question: Question, policy: Policy) -> str:
    """`refuse`, or the id of the rule that a question is about, by its name or its whole text; empty for others."""
    if question.type != "predicate":
        return ""
    names: dict[str, str] = {"refuse": "refuse", "should this be refused": "refuse"}
    for rule in policy.rules:
        names |= {text.casefold().rstrip("?."): rule.id for text in _called(rule)}
    for said in (question.name or "", question.said):
        if (found := names.get(said.strip().casefold().rstrip("?."))) is not None:
            return found
    return ""


def _called(rule: Rule) -> tuple[str, ...]:
    return (rule.id, rule.title, rule.description, f"{rule.id} {rule.title}", f"Does it break rule {rule.id}")


class GuardrailRequest(BaseModel):
    """What LiteLLM's proxy sends for a call that it guards."""

    input_type: Literal["request", "response"] = "request"
    texts: list[str] | None = None
    structured_messages: list[Turn] | None = None
    images: list[str] | None = None


@router.post("/beta/litellm_basic_guardrail_api", response_model=None)
async def guardrail(body: GuardrailRequest, request: Request) -> Response:
    """BLOCKED with the rules where the conversation is refused, else NONE. Images can't be read: BLOCKED."""
    with Run(request, "guard") as run:
        if body.images:
            said: dict[str, Any] = {"action": "BLOCKED", "blocked_reason": "Images can't be judged"}
        else:
            asked = [_asked(run, turns) for turns in _conversations(body)]
            said = {"action": "NONE"}
            for verdict, _ in await _judged(run, asked, shares=False):
                if verdict.refused:
                    said = {"action": "BLOCKED", "blocked_reason": _reason(verdict)}
                    break
        return JSONResponse(said)


def _conversations(body: GuardrailRequest) -> list[list[Turn]]:
    """What is judged: the whole conversation, or each text by itself where there is none, as with an answer."""
    turns = [turn for turn in body.structured_messages or () if turn.text.strip() or turn.tool_calls]
    texts = [text for text in body.texts or () if text.strip()]
    if body.input_type == "request" and any(turn.role == "user" for turn in turns):
        return [turns]
    return [[Turn(role="user", content=text)] for text in texts]


def _reason(verdict: Verdict) -> str:
    rules = "; ".join(f"{rule.id} {rule.title}" for rule in verdict.rules)
    return f"Refused: {rules}" if rules else f"Refused{f' ({verdict.cause})' if verdict.cause else ''}"


def _asked(run: Run, turns: Sequence[Turn]) -> Asked:
    server = run.server
    return Asked(messages=rendered(turns, server.engine, run.caller, server.settings.max_messages).messages)


async def _judged(run: Run, asked: Sequence[Asked], shares: bool = True) -> Sequence[tuple[Verdict, dict[str, float]]]:
    """Verdicts, side by side, with how likely each rule is."""

    async def one(each: Asked) -> tuple[Verdict, dict[str, float]]:
        verdict = await run.decide(each)
        return verdict, await run.unless_gone(run.server.engine.rule_shares(each)) if shares else {}

    return await asyncio.gather(*[one(each) for each in asked])
