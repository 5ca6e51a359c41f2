"""Effort levels and evaluation counts as hop plans.

Imports no torch, so that commands can name levels in their options.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from diffcodec.codec.plan import PlanConfig, count_evaluations
from diffcodec.codec.tiles import TileLayout

if TYPE_CHECKING:
    from diffcodec.codec.model import CodecModel

GROWTH_INDICES = range(64)
EVALUATIONS_PER_GROUP = 8
"""Of a given number of evaluations, one in so many goes to groups of pixels."""


@dataclass(frozen=True)
class Effort:
    """What an effort level chooses.

    Attributes:
        plan: the hop plan and the channel code.
        groups: groups of pixels in a lossless file's last stage.
    """

    plan: PlanConfig
    groups: int


# In order of the encoder's time for a lossless file; chosen among plans and codes by what
# they gave on held-out images (docs/coding.md, Effort).
_LEVELS = {
    1: Effort(PlanConfig(growth_index=63, parts=64, code_id=0), groups=2),
    2: Effort(PlanConfig(growth_index=48, parts=64, code_id=0), groups=8),
    3: Effort(PlanConfig(growth_index=40, parts=64, code_id=2), groups=8),
    4: Effort(PlanConfig(growth_index=24, parts=64, code_id=2), groups=8),
    5: Effort(PlanConfig(growth_index=16, parts=64, code_id=2), groups=8),
    6: Effort(PlanConfig(growth_index=16, parts=64, code_id=2), groups=16),
    7: Effort(PlanConfig(growth_index=9, parts=64, code_id=2), groups=16),
    8: Effort(PlanConfig(growth_index=7, parts=64, code_id=3), groups=16),
    9: Effort(PlanConfig(growth_index=5, parts=64, code_id=3), groups=16),
}

EFFORTS = tuple(_LEVELS)
"""Effort levels, fastest first."""
DEFAULT_EFFORT = 5
"""The level that every command, benchmark and `EncoderSettings` takes unless told otherwise."""


def effort_level(effort: int) -> Effort:
    """What an effort level chooses, 1 (fastest) to 9 (smallest files).

    Raises:
        ValueError: any other level.
    """
    if effort not in _LEVELS:
        raise ValueError(f"expected an effort of 1 to {EFFORTS[-1]}, got {effort}")
    return _LEVELS[effort]


def effort_for_evaluations(
    model: "CodecModel", evaluations: int, layout: TileLayout
) -> tuple[Effort, int]:
    """What makes the best lossless file of an average image in a number of evaluations.

    Args:
        layout: of the image; plans of more than one vector have more hops.

    Returns:
        The effort and its evaluations; more than was asked for if none takes as few.
    """
    # Here, since they bring torch along, as the model that is given has done.
    from diffcodec.codec.encoder import HANDOVER_GAMMA
    from diffcodec.codec.reverse import plan_of

    final_step = model.schedule.step_at_gamma(HANDOVER_GAMMA)
    default = effort_level(DEFAULT_EFFORT)
    share = max(1, evaluations // EVALUATIONS_PER_GROUP)
    groups = min(default.groups, model.most_groups, share)
    for growth_index in GROWTH_INDICES:
        config = replace(default.plan, growth_index=growth_index)
        needed = count_evaluations(plan_of(model, layout, config, final_step)) + groups - 1
        if needed <= evaluations:
            break
    return Effort(config, groups), needed
