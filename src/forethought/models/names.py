"""Names of models: which are asked for at a server, and which are loaded here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LOCAL = "forethought/"
"""Before a model's name: it is loaded here and not asked for at a server."""
_PROVIDERS = frozenset({
    "anthropic", "azureai", "bedrock", "cloudflare", "deepseek", "google", "grok", "groq", "mistral", "mockllm",
    "nebius", "ollama", "openai", "openai-api", "openrouter", "perplexity", "sglang", "together", "vertex", "vllm",
})  # fmt: skip
"""Providers that inspect-ai asks at a server; other names with a slash are a hub's."""


def is_served(name: str, base_urls: Sequence[str] = ()) -> bool:
    """Whether a name is a model of a server, and none that is loaded here."""
    if name.startswith(LOCAL) or Path(name).exists():
        return False
    return bool(base_urls) or ("/" in name and name.partition("/")[0] in _PROVIDERS)
