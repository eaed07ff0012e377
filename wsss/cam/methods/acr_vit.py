"""ACR with a transformer for its classifier (ACR, CVPR 2023, supplementary, section B)."""

from __future__ import annotations

from functools import partial

from wsss.cam.methods.acr import AcrMethod
from wsss.cam.methods.transformer import TRANSFORMER

AcrVitMethod = partial(AcrMethod, family=TRANSFORMER)
