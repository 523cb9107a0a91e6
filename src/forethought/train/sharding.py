"""FSDP2 among processes without an accelerator, so that what runs on a cluster can be tried on one machine.

accelerate reads an FSDP config for GPUs and the like, and leaves processes on CPU to plain DDP without a word
(`AcceleratorState.__init__`, accelerate 1.15). All that FSDP2 needs is there: torch's `fully_shard` works over gloo.
"""

from __future__ import annotations

import os
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin


def shard_on_cpu(accelerator: Any) -> bool:
    """Makes the accelerator shard where its config asks for FSDP2 and processes run on CPU; returns whether it does.

    Before anything is prepared. On other devices accelerate has seen to it, and nothing is changed.
    """
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not asked or accelerator.distributed_type is not DistributedType.MULTI_CPU:
        return False
    state = accelerator.state
    state.fsdp_plugin = FullyShardedDataParallelPlugin()  # reads what the launcher set from the config file
    state.distributed_type = DistributedType.FSDP
    # Every state object reads this one, as it does where accelerate chooses FSDP itself.
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    return True
