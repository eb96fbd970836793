"""The engine: implicit im2col by one register-blocked micro-kernel.

``emit`` (the micro-kernel) -> ``loop`` (control over tiles) -> ``plan``. Nothing here validates.
"""

from __future__ import annotations

from fastconv.engine.products import EnginePlan

__all__ = ["EnginePlan"]
