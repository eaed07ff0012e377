import pytest
import torch
from timm.scheduler import CosineLRScheduler

from wsss.errors import UserError
from wsss.training.schedule import cosine_learning_rate


def test_same_rates_as_the_scheduler_of_the_recipe() -> None:
    peak = 5e-4 * 64 / 512
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = CosineLRScheduler(
        optimizer, t_initial=60, lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-6
    )
    for epoch in range(60):
        scheduler.step(epoch)
        rate = cosine_learning_rate(epoch, 60, warmup_steps=5, peak=peak)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert cosine_learning_rate(60, 60, warmup_steps=5, peak=peak) == pytest.approx(1e-5)
    assert cosine_learning_rate(99, 60, warmup_steps=5, peak=peak) == pytest.approx(1e-5)


def test_without_warm_up_the_first_rate_is_the_peak() -> None:
    assert cosine_learning_rate(0, 10, warmup_steps=0, peak=1e-3) == pytest.approx(1e-3)


def test_peak_below_the_end_is_refused() -> None:
    # Batch 8 gives a peak of 7.8e-6, so a "decay" to 1e-5 would rise.
    with pytest.raises(UserError, match=r"7\.8"):
        cosine_learning_rate(0, 10, warmup_steps=1, peak=5e-4 * 8 / 512)


@pytest.mark.parametrize(("warmup", "total"), [(11, 10), (-1, 10), (0, 0)])
def test_impossible_warm_up_is_refused(warmup: int, total: int) -> None:
    with pytest.raises(UserError, match="warm-up"):
        cosine_learning_rate(0, total, warmup_steps=warmup, peak=1e-3)
