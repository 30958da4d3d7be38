from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from rastervision.pipeline.errors import ConfigError, RunError
from rastervision.pytorch_learner.loop import (
    NonFiniteLossError,
    Precision,
    RecordingSampler,
    Update,
    describe_batch,
    has_batch_norm,
    train_batches,
    validate_batches,
)
from rastervision.pytorch_learner.meter import Meter


def batches(*values: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.full((1, 1), float(v)), torch.zeros(1, 1)) for v in values]


class Fit:
    """Fit y = w x to 0."""

    def __init__(self) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.model.weight)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def train_step(self, batch: Any, index: int) -> dict[str, Any]:
        x, y = batch
        return {"train_loss": nn.functional.mse_loss(self.model(x), y)}

    def validate_step(self, batch: Any, index: int) -> dict[str, Any]:
        return {"val_loss": self.train_step(batch, index)["train_loss"], "index": index}

    @property
    def weight(self) -> float:
        return self.model.weight.item()


def test_training_takes_a_step_per_batch() -> None:
    fit = Fit()

    outputs = train_batches(fit.train_step, batches(1, 1), Update(fit.optimizer))

    assert [o["train_loss"] for o in outputs] == pytest.approx([1, 0.64])
    assert fit.weight == pytest.approx(0.64)


def test_the_step_schedule_advances_with_each_batch() -> None:
    fit = Fit()
    schedule = torch.optim.lr_scheduler.StepLR(fit.optimizer, step_size=1, gamma=0.5)

    train_batches(fit.train_step, batches(1, 1), Update(fit.optimizer, schedule))

    assert fit.optimizer.param_groups[0]["lr"] == pytest.approx(0.025)


@pytest.mark.parametrize(("accumulate", "weights"), [(1, [0.8, 0.64, 0.512]), (2, [0.8, 0.64]), (5, [0.8])])
def test_gradients_are_added_for_a_step(accumulate: int, weights: list[float]) -> None:
    fit, seen = Fit(), []
    update = Update(fit.optimizer, accumulate=accumulate, after_step=lambda: seen.append(fit.weight))

    train_batches(fit.train_step, batches(1, 1, 1), update, total=3)

    assert seen == pytest.approx(weights)


def test_long_gradients_are_clipped() -> None:
    fit = Fit()

    train_batches(fit.train_step, batches(100), Update(fit.optimizer, max_grad_norm=0.5))

    assert fit.weight == pytest.approx(0.95)


def test_progress_tells_speed_and_loss(caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter("last avg_f1 0.5")

    with caplog.at_level("INFO", logger="rastervision"):
        train_batches(Fit().train_step, batches(1, 1), Update(Fit().optimizer), meter=meter)
        train_batches(Fit().train_step, batches(1), Update(Fit().optimizer), meter=Meter(shown=False))

    assert meter.images == 2
    assert meter.note(0.25).startswith("loss 0.25, last avg_f1 0.5, ")
    assert "images/s, " in str(meter)
    assert "of the time waiting for data" in str(meter)
    assert str(Meter()) == ""
    assert caplog.text.count("train: ") == 1


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NanTransformer"), (1e30, "solver.lr")])
def test_a_loss_that_is_not_finite_stops_before_it_changes_the_weights(value: float, word: str) -> None:
    fit = Fit()

    with pytest.raises(NonFiniteLossError, match=rf"batch 1 of 'epoch 2/3' \(chip 1\)\. .*{word}") as e:
        train_batches(
            fit.train_step,
            batches(0, value),
            Update(fit.optimizer),
            description="epoch 2/3",
            describe=lambda i: f"chip {i}",
        )

    assert fit.weight == 1
    assert isinstance(e.value, RunError)


def test_validation_does_not_train_and_stops_at_nan_too() -> None:
    fit = Fit()

    outputs = validate_batches(fit.validate_step, batches(1, 2))

    assert [(o["val_loss"], o["index"]) for o in outputs] == [(1, 0), (4, 1)]
    with pytest.raises(NonFiniteLossError, match="batch 0 of 'validate'"):
        validate_batches(fit.validate_step, batches(float("inf")))


def test_a_single_chip_with_batch_norm_is_an_error_with_a_remedy() -> None:
    model = nn.BatchNorm1d(1)
    fit = Fit()

    with pytest.raises(ConfigError, match=r"Batch 0 .* single chip.*Raise solver.batch_sz"):
        train_batches(lambda b, i: {"train_loss": model(b[0]).sum()}, batches(1), Update(fit.optimizer))
    with pytest.raises(ValueError, match="something else"):
        train_batches(_fail, batches(1), Update(fit.optimizer))
    assert has_batch_norm(nn.Sequential(model))
    assert not has_batch_norm(fit.model)


def _fail(batch: Any, index: int) -> dict[str, Any]:
    raise ValueError("something else")


def test_the_sampler_knows_the_chips_of_each_batch() -> None:
    ds = TensorDataset(torch.arange(10))
    loader: DataLoader[Any] = DataLoader(ds, batch_size=4, sampler=RecordingSampler(RandomSampler(ds)))

    for i, (x,) in enumerate(loader):
        assert describe_batch(loader, i) == "; ".join(f"item {j}" for j in x.tolist())

    assert len(loader.sampler) == 10  # type: ignore[arg-type]
    assert describe_batch(DataLoader(ds, batch_size=2), 0) == ""


def test_only_some_chips_are_named() -> None:
    ds = TensorDataset(torch.arange(10))
    loader: DataLoader[Any] = DataLoader(ds, batch_size=10, sampler=RecordingSampler(RandomSampler(ds)))
    next(iter(loader))

    assert describe_batch(loader, 0).endswith("; 6 more")


def test_mixed_precision_is_for_cuda_unless_it_is_named() -> None:
    cpu = torch.device("cpu")

    assert not Precision(cpu, True).enabled
    assert not Precision(cpu, False).enabled
    assert Precision(cpu, False).state_dict() == {}
    for kind, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        precision = Precision(cpu, kind)  # type: ignore[arg-type]
        with precision.autocast():
            assert nn.Linear(8, 8)(torch.rand(2, 8)).dtype == dtype


def test_a_scaled_loss_gives_the_same_steps_and_skips_infinite_gradients() -> None:
    fit, precision = Fit(), Precision(torch.device("cpu"), "fp16")
    schedule = torch.optim.lr_scheduler.StepLR(fit.optimizer, step_size=1, gamma=0.5)
    update = Update(fit.optimizer, schedule, precision, max_grad_norm=10.0)

    train_batches(fit.train_step, batches(0.25), update)
    weight, scale = fit.weight, precision.state_dict()["scale"]
    train_batches(lambda b, i: {"train_loss": fit.train_step(b, i)["train_loss"] * 1e36}, batches(0.25), update)

    assert weight == pytest.approx(0.9875, abs=1e-3)
    assert fit.weight == weight
    assert precision.state_dict()["scale"] < scale
    assert schedule.last_epoch == 1
    other = Precision(torch.device("cpu"), "fp16")
    other.load_state_dict(precision.state_dict())
    assert other.state_dict() == precision.state_dict()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_mixed_precision_on_cuda() -> None:
    precision = Precision(torch.device("cuda"))

    with precision.autocast():
        out = nn.Linear(8, 8).cuda()(torch.rand(2, 8, device="cuda"))

    assert out.dtype == precision.dtype != torch.float32
