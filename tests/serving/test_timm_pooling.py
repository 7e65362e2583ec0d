"""A trunk whose pooling does not give its width is refused."""

from __future__ import annotations

import pytest

timm = pytest.importorskip("timm", reason="timm is not installed")


@pytest.mark.parametrize("pooling", ["catavgmax", ""])
def test_a_resnet_that_pools_otherwise_is_refused(pooling: str) -> None:
    from oncoshift.serving.timm_trunk import _split

    model = timm.create_model("resnet18", pretrained=False, num_classes=0, global_pool=pooling)
    with pytest.raises(ValueError, match=f"it pools by '{pooling}'"):
        _split(model, "auto")
    assert _split(timm.create_model("resnet18", pretrained=False, num_classes=0), "auto")[1] == 512
