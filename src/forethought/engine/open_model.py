"""An inspect model by name, without surprises: no server started, no hub asked, errors of one line."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Any
from urllib.parse import urlsplit

from inspect_ai.model import Model, ModelOutput, ModelUsage, get_model

from forethought.errors import ModelError

_STARTS_A_SERVER = {"vllm": "VLLM_BASE_URL", "sglang": "SGLANG_BASE_URL"}
_LOADS_FROM_THE_HUB = {"hf", "transformer_lens", "nnterp"}


def open_model(name: str, base_url: str | None = None) -> Model:
    """The model called PROVIDER/NAME. Raises ModelError where it can't be opened, with what to do."""
    provider = name.partition("/")[0]
    if "/" not in name:
        raise ModelError(
            f"model '{name}'", "names no provider", "Write PROVIDER/NAME, such as openai/NAME or vllm/NAME"
        )
    if provider in _LOADS_FROM_THE_HUB:
        raise ModelError(
            f"model '{name}'", "would be looked up on a hub", "Write forethought/FOLDER for a model on this machine"
        )
    variable = _STARTS_A_SERVER.get(provider)
    if variable and not base_url and not os.environ.get(variable):
        raise ModelError(
            f"model '{name}'", "has no server", f"Start one, then give its address with --base-url or {variable}"
        )
    # inspect's scripted model would fetch a vocabulary from the net to count its tokens.
    special: dict[str, Any] = {"custom_outputs": _silent} if provider == "mockllm" else {}
    if provider == "openai" and (base_url or os.environ.get("OPENAI_BASE_URL")):
        special["responses_api"] = False  # compatible servers have chat completions, few have the newer interface
    try:
        model = get_model(name, base_url=base_url, api_key=_local_key(name, base_url), memoize=False, **special)
    except Exception as error:  # providers raise all kinds for a missing package, key or name
        raise _cannot_open(name, error) from None
    client: Any = getattr(model.api, "client", None)
    if isinstance(getattr(client, "max_retries", None), int):
        # The SDK's own retries would hide "too many requests" from the limiter.
        client.max_retries = 0
    return model


def _local_key(name: str, base_url: str | None) -> str | None:
    """A stand-in for a server on this machine or network, which needs no key while its client does; else None."""
    provider, _, rest = name.partition("/")
    service = rest.partition("/")[0] if provider == "openai-api" else provider
    if os.environ.get(f"{service.upper().replace('-', '_')}_API_KEY"):
        return None
    if provider in _STARTS_A_SERVER:
        return "none"
    return "none" if provider in ("openai", "openai-api") and base_url and _is_near(base_url) else None


def _is_near(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or "." not in host


def _silent(*_: Any) -> ModelOutput:
    output = ModelOutput.from_content("mockllm", "Default output from mockllm/model")
    output.usage = ModelUsage()
    return output


def _cannot_open(name: str, error: Exception) -> ModelError:
    said = " ".join(re.sub(r"\[/?\w+\]", "", str(getattr(error, "message", None) or error)).split())
    if install := re.search(r"pip install [\w\-. ]+", said):
        package = install[0].strip()
        return ModelError(f"model '{name}'", "needs a package that is not installed", f"Run: {package}")
    if variable := re.search(r"\b[A-Z][A-Z0-9_]*_(?:API_KEY|TOKEN|BASE_URL)\b", said):
        return ModelError(f"model '{name}'", f"{variable[0]} is not set", "Set that environment variable")
    return ModelError(f"model '{name}'", "can't be opened", said[:300] or type(error).__name__)
