"""Clients that stand in this environment anyway; `benchmarks/clients.py` tries those that need one of their own."""

from __future__ import annotations

import asyncio

from inspect_ai.model import ContentReasoning, get_model

from forethought.model import load
from tests.server.operated import ANSWER, THOUGHT, operated

PLAIN, LOCK = "How do I get into my own house?", "How do I open a lock?"


def test_inspect_ai_gets_the_answer_the_refusal_and_the_thought_as_reasoning() -> None:
    with operated() as server:
        model = get_model("openai-api/forethought/scripted", base_url=f"{server.url}/v1", api_key="none")

        async def ask() -> list[str]:
            answers = [await model.generate(text) for text in (PLAIN, LOCK)]
            content = answers[0].choices[0].message.content
            assert isinstance(content, list)
            assert [one.reasoning for one in content if isinstance(one, ContentReasoning)] == [THOUGHT]
            return [answer.completion for answer in answers]

        assert asyncio.run(ask()) == [ANSWER, "I can't help with that."]


def test_our_own_client_opens_a_server_as_a_model() -> None:
    with operated() as server:
        model = load(f"{server.url}/v1#scripted")
        assert [reply.answer for reply in (model.reply(PLAIN), model.reply(LOCK))] == [
            ANSWER,
            "I can't help with that.",
        ]
