import pytest

from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.denoiser import Variance
from diffcodec.training.objective import OBJECTIVES
from diffcodec.training.recipes import RECIPES


def test_every_configuration_has_a_recipe() -> None:
    assert set(RECIPES) == set(MODEL_CONFIGS)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_trains_all_that_its_model_tells(name: str) -> None:
    objective = RECIPES[name].objective
    assert objective in OBJECTIVES
    if MODEL_CONFIGS[name].variance is Variance.LEARNED:
        assert objective in ("hybrid", "vlb_discrete")
    if MODEL_CONFIGS[name].schedule.kind == "learned":
        assert objective in ("vlb", "vlb_discrete")
    if MODEL_CONFIGS[name].pixel_model:
        assert objective == "vlb_pixels"
