"""Hidden states of a prompt's last token out of vLLM, in the response itself: what a probe decides by.

A connector for vLLM's method `extract_hidden_states`, which keeps the states of some layers in a cache of their own.
vLLM's example of a connector writes whole requests to files; this one gives the states of one token to whoever asks
for them with `"kv_transfer_params": {"states": true}`, as `kv_transfer_params` of the response: `layers`, and `states`,
base64 of float32, (layers, hidden size). docs/serving.md has the command. It needs nothing of Forethought: this file's
folder on PYTHONPATH of the server is enough. Written for vLLM 0.32.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorWorkerMetadata,
    SupportsHMA,
)
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank

_CACHE = "cache_only_layers"
"""In the name of what keeps the states."""


@dataclass
class _Due(KVConnectorMetadata):
    """Of a step: the requests whose prompts end in it, with the block and the place of the last token."""

    places: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass
class _Found(KVConnectorWorkerMetadata):
    """States by request, on their way from worker to scheduler."""

    states: dict[str, bytes] = field(default_factory=dict)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        assert isinstance(other, _Found)
        return _Found(self.states | other.states)


@dataclass
class _Reading:
    """A request whose prompt is being read."""

    blocks: list[int]
    last: int
    """Place of the prompt's last token."""


class StatesConnector(KVConnectorBase_V1, SupportsHMA):
    """Loads and stores nothing. The scheduler's one says what is due; the worker's one reads it once it is there."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        groups = kv_cache_config.kv_cache_groups
        held = [place for place, one in enumerate(groups) if any(_CACHE in name for name in one.layer_names)]
        (self._group,) = held
        self._block_size = groups[self._group].kv_cache_spec.block_size
        method = vllm_config.speculative_config.draft_model_config.hf_config
        self._layers = list(method.eagle_aux_hidden_state_layer_ids)
        self._reading: dict[str, _Reading] = {}
        self._told: dict[str, bytes] = {}
        self._cache: torch.Tensor | None = None
        self._found: dict[str, bytes] = {}

    # The scheduler's.

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        due, running = _Due(), scheduler_output.scheduled_cached_reqs
        for new in scheduler_output.scheduled_new_reqs:
            more = (new.sampling_params.extra_args or {}) if new.sampling_params is not None else {}
            if (more.get("kv_transfer_params") or {}).get("states"):
                last = len(new.prompt_token_ids) - 1
                self._reading[new.req_id] = _Reading(list(new.block_ids[self._group]), last)
                self._end(due, new.req_id, new.num_computed_tokens, scheduler_output)
        for place, request in enumerate(running.req_ids):
            if request in self._reading:
                reading, blocks = self._reading[request], running.new_block_ids[place]
                again = request in running.resumed_req_ids
                reading.blocks = ([] if again else reading.blocks) + list(blocks[self._group] if blocks else ())
                self._end(due, request, running.num_computed_tokens[place], scheduler_output)
        return due

    def _end(self, due: _Due, request: str, read_before: int, scheduler_output: Any) -> None:
        """Notes a request whose prompt ends in this step."""
        reading = self._reading[request]
        if read_before + scheduler_output.num_scheduled_tokens[request] > reading.last:
            due.places[request] = reading.blocks[reading.last // self._block_size], reading.last % self._block_size
            del self._reading[request]

    def update_connector_output(self, connector_output: Any) -> None:
        found = connector_output.kv_connector_worker_meta
        if isinstance(found, _Found):
            self._told |= found.states

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        self._reading.pop(request.request_id, None)
        states = self._told.pop(request.request_id, None)
        if states is None:
            return False, None
        return False, {"layers": self._layers, "states": base64.b64encode(states).decode()}

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        return self.request_finished(request, [])

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        return 0, False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        pass

    # The worker's.

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        (self._cache,) = (one for name, one in kv_caches.items() if _CACHE in name)
        assert self._cache.shape[2] == self._block_size

    def wait_for_save(self) -> None:
        """Reads what is due: the step has written it by now. States are the same on all ranks."""
        due = self._get_connector_metadata()
        if not isinstance(due, _Due) or self._cache is None or get_tensor_model_parallel_rank() != 0:
            return
        for request, (block, place) in due.places.items():
            # Blocks, layers, places, hidden size.
            self._found[request] = self._cache[block, :, place].float().cpu().contiguous().numpy().tobytes()

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        """What was read at the end of the step before: this is asked before that of the step itself is."""
        found, self._found = self._found, {}
        return _Found(found) if found else None

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        pass

    def wait_for_layer_load(self, layer_name: str) -> None:
        pass

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        pass

    @classmethod
    def get_required_kvcache_layout(cls, vllm_config: Any) -> str | None:
        """All layers' states of a token lie together."""
        return "LBNHC"
