"""What the server that children are forked from imports, once a test run: all that any of them needs."""

import gc

import accelerate.commands.launch
import inspect_ai.log
import peft
import trl.trainer.sft_trainer
import uvicorn

import forethought.cli.app
import forethought.pipeline.run
import forethought.research.sweep
import forethought.server.serve
import forethought.training.fit
import forethought.training.grpo

__all__ = ["accelerate", "forethought", "inspect_ai", "peft", "trl", "uvicorn"]

gc.collect()
gc.freeze()  # what is imported stays: no collection of a child has to look through it
