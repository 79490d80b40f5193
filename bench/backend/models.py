"""Whole models with random weights, from transformers and diffusers where they are installed."""

from __future__ import annotations

from collections.abc import Mapping

from bench.backend.programs import Program

MODELS: Mapping[str, Program] = dict.fromkeys(())

__all__ = ["MODELS"]
