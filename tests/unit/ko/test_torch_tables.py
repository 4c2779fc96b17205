"""torch's tests of optimizer steps, applied to KO with each base. Test names are those of torch's test/test_optim.py,
inputs are those of torch's tables (see torch_infos.py).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.testing._internal.common_optimizers import ErrorOptimizerInput, OptimizerErrorEnum

from ko import KO
from tests.devices import DEVICES
from tests.unit.ko.torch_infos import CASES, FORMS, Case, advance, every_base, every_case, set_gradients, values

on_devices = pytest.mark.parametrize("device", DEVICES)


def loss_of(params: list[nn.Parameter]) -> Tensor:
    """Squared distance of all parameters from a point other than the origin."""
    return sum((p - 0.5).square().sum() for p in params)  # type: ignore[return-value]


def train(optimizer: KO, params: list[nn.Parameter], steps: int, schedulers: Any = ()) -> list[float]:
    """The losses before the first step and after each step."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(params)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    losses = []
    for _ in range(steps):
        losses.append(float(optimizer.step(closure)))
        for scheduler in schedulers:
            scheduler.step(*([losses[-1]] if isinstance(scheduler, ReduceLROnPlateau) else []))
    return [*losses, float(loss_of(params).detach())]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _expected_error(error: ErrorOptimizerInput) -> Any:
    if issubclass(error.error_type, Warning):
        return pytest.warns(error.error_type, match=error.error_regex)
    # KO rejects a complex gradient if it collides; test_complex covers the error of the base.
    is_complex = "complex" in error.optimizer_error_input.desc
    message = "KO cannot collide the complex gradient of parameter 0" if is_complex else error.error_regex
    return pytest.raises(error.error_type, match=message)


@on_devices
class TestErrors:
    @every_base
    def test_errors(self, case: Case, device: str, subtests: pytest.Subtests) -> None:
        for error in case.info.optim_error_inputs_func(device, torch.float32):
            entry = error.optimizer_error_input
            params = case.parameters(device) if entry.params is None else entry.params
            with subtests.test(entry.desc), _expected_error(error):
                optimizer = KO(params, **entry.kwargs)
                if error.error_on is OptimizerErrorEnum.STEP_ERROR:
                    optimizer.step()

    @every_base
    def test_complex(self, case: Case, device: str) -> None:
        params = [nn.Parameter(torch.randn(4, 3, dtype=torch.complex64, device=device)) for _ in range(2)]
        optimizer = case.build(params)
        before = values(params)
        with pytest.raises(RuntimeError, match="KO cannot collide the complex gradient of parameter 0"):
            advance(optimizer, params, range(1))
        assert all(map(torch.equal, params, before))
        reference = copy.deepcopy(params)
        if not case.torch_info.supports_complex:
            with pytest.raises(RuntimeError, match=r"(Muon|Adafactor).* (complex gradient|complex parameters)"):
                advance(case.build(params, collision="none"), params, range(1))
            return
        advance(case.build(params, collision="none"), params, range(2))
        advance(case.base_alone(reference), reference, range(2))
        assert all(map(torch.equal, params, reference))

    @pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning")
    @every_base
    def test_rosenbrock_sparse(self, case: Case, device: str) -> None:
        options, _ = case.torch_info.metadata_for_sparse
        params = [nn.Parameter(torch.tensor([[1.5, 1.5], [1.0, 0.5]], device=device))]

        def step(optimizer: torch.optim.Optimizer, p: nn.Parameter) -> None:
            optimizer.zero_grad()
            x, y = p[:, 0], p[:, 1]
            (100 * (y - x**2) ** 2 + (1 - x) ** 2).sum().backward()
            p.grad = p.grad.to_sparse()  # type: ignore[union-attr]
            optimizer.step()

        with pytest.raises(RuntimeError, match="KO cannot collide the sparse gradient of parameter 0"):
            step(case.build(params), params[0])
        if not case.torch_info.supports_sparse:
            return
        reference = copy.deepcopy(params)
        ko, base = case.build(params, collision="none", **options), case.base_alone(reference, **options)
        for _ in range(3):
            step(ko, params[0])
            step(base, reference[0])
        assert torch.equal(params[0], reference[0])


@on_devices
class TestDirection:
    @every_case
    def test_forloop_goes_right_direction(self, case: Case, device: str) -> None:
        for kwargs in case.inputs(device):
            params = case.parameters(device)
            losses = train(KO(params, **kwargs, foreach=False), params, 8)
            assert (losses[-1] > losses[0]) == kwargs.get("maximize", False), kwargs

    @every_base
    def test_param_group_with_lrscheduler_goes_right_direction(self, case: Case, device: str) -> None:
        for build_schedulers in case.info.scheduler_inputs:
            first, *rest = params = case.parameters(device)
            optimizer = case.build([{"params": [first]}, {"params": rest, "lr": 0.01}])
            losses = train(optimizer, params, 8, [build(optimizer) for build in build_schedulers])
            assert losses[-1] < losses[0]

    @every_base
    def test_schedulers_change_learning_rates_as_for_the_base(self, case: Case, device: str) -> None:
        for build_schedulers in case.info.scheduler_inputs:
            params, reference = case.parameters(device), case.parameters(device)
            optimizers = case.build(params, collision="none"), case.base_alone(reference)
            schedulers = [[build(optimizer) for build in build_schedulers] for optimizer in optimizers]
            for step in range(3):
                for optimizer, ps, own in zip(optimizers, (params, reference), schedulers, strict=True):
                    advance(optimizer, ps, range(step, step + 1))
                    for scheduler in own:
                        scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))
                rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
                assert rates[0] == rates[1]
            assert all(map(torch.equal, params, reference))

    @every_base
    def test_param_groups_lr(self, case: Case, device: str) -> None:
        if case.base is torch.optim.Rprop:
            return  # its lr is used in the first step only
        still, *moving = params = case.parameters(device)
        before = values(params)
        advance(case.build([{"params": [still], "lr": 0.0}, {"params": moving}], lr=0.1), params, range(2))
        assert torch.equal(still, before[0])
        assert not any(map(torch.equal, moving, before[1:]))

    @every_base
    def test_param_groups_weight_decay(self, case: Case, device: str) -> None:
        if "weight_decay" not in case.build(case.parameters(device)).defaults:
            assert case.base is torch.optim.Rprop
            return
        decayed, *plain = params = case.parameters(device)
        optimizer = case.build(
            [{"params": [decayed], "weight_decay": 0.5}, {"params": plain}], lr=0.1, weight_decay=0.0
        )
        for group in optimizer.param_groups:
            group.update({"lambd": 0.0} if "lambd" in group else {})  # ASGD's own decay
        before = values(params)
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        assert all(map(torch.equal, plain, before[1:]))
        assert decayed.norm() < before[0].norm()

    @every_base
    @pytest.mark.parametrize("num_dim", [0, 1, 2])
    def test_tensor_lr(self, case: Case, device: str, num_dim: int) -> None:
        for kwargs in case.inputs(device):
            lr = kwargs.pop("lr", 0.01)
            rates: list[Any] = [float(lr), torch.full((1,) * num_dim, float(lr))]
            results = []
            for rate in rates:
                params = case.parameters(device)
                advance(KO(params, lr=rate, **kwargs, foreach=False), params, range(2))
                results.append(values(params))
            torch.testing.assert_close(*results)
            assert torch.equal(rates[1], torch.full_like(rates[1], float(lr)))  # lr is not modified


@on_devices
class TestImplementations:
    @every_case
    def test_foreach_matches_forloop(self, case: Case, device: str) -> None:
        for kwargs in case.inputs(device):
            if isinstance(kwargs.get("lr"), Tensor) and not kwargs.get("capturable", False):
                continue  # torch rejects a tensor lr there
            results = []
            for foreach in (False, True):
                params = case.parameters(device)
                advance(KO(params, **kwargs, foreach=foreach), params, range(3))
                results.append(values(params))
            torch.testing.assert_close(*results)

    @every_case
    def test_fused_matches_forloop(self, case: Case, device: str) -> None:
        if device not in case.info.supports_fused_on:
            return
        results = []
        for fused in (False, True):
            params = case.parameters(device)
            advance(case.build(params, fused=fused), params, range(3))
            results.append(values(params))
        torch.testing.assert_close(*results)

    @every_case
    def test_mixed_device_dtype(self, case: Case, device: str) -> None:
        dtypes = (torch.float32, torch.float64, torch.bfloat16)
        results = []
        for foreach in (False, True):
            params = [p for dtype in dtypes for where in {"cpu", device} for p in case.parameters(where, dtype)]
            optimizer = case.build(params, foreach=foreach)
            advance(optimizer, params, range(2))
            assert [p.dtype for p in params[:: len(params) // 3]] == list(dtypes)
            results.append(values(params))
        torch.testing.assert_close(*results)

    @every_case
    def test_set_default_dtype_works_with_foreach(self, case: Case, device: str) -> None:
        results = []
        for dtype in (torch.float32, torch.float16, torch.float64):
            params = case.parameters(device)
            with default_dtype(dtype):
                advance(case.build(params, foreach=True), params, range(2))
            assert all(p.dtype == torch.float32 for p in params)
            results.append(values(params))
        torch.testing.assert_close(results[0], results[1])
        torch.testing.assert_close(results[0], results[2])

    @pytest.mark.parametrize("form", FORMS)
    def test_grad_scaling(self, form: str, device: str) -> None:
        case = CASES[f"adam-{form}"]
        results = []
        for scale in (None, 1024.0):
            params = case.parameters(device)
            optimizer = case.build(params)
            scaler = torch.amp.GradScaler(device, init_scale=scale or 1.0, enabled=scale is not None)
            for step in range(4):
                optimizer.zero_grad()
                scaler.scale(loss_of(params)).backward()
                if step == 2 and scale is not None:  # an overflow in the scaled run only
                    before, clock = values(params), optimizer.param_groups[0]["collision_step"]
                    params[0].grad[0, 0] = torch.inf  # type: ignore[index]
                    scaler.step(optimizer)
                    scaler.update()
                    assert all(map(torch.equal, params, before))
                    assert [group["collision_step"] for group in optimizer.param_groups] == [clock]
                    assert scaler.get_scale() == 512.0
                    optimizer.zero_grad()
                    scaler.scale(loss_of(params)).backward()
                scaler.step(optimizer)
                scaler.update()
            results.append(values(params))
        torch.testing.assert_close(*results)


@on_devices
class TestNoOp:
    @every_case
    def test_step_is_noop_when_params_have_no_grad(self, case: Case, device: str) -> None:
        for kwargs in case.inputs(device):
            params = case.parameters(device)
            before = values(params)
            KO(params, **kwargs).step()
            assert all(map(torch.equal, params, before))

    @every_case
    def test_step_is_noop_for_zero_grads(self, case: Case, device: str) -> None:
        for kwargs in case.inputs(device):
            params = case.parameters(device)
            before = values(params)
            optimizer = KO(params, **kwargs)
            for group in optimizer.param_groups:
                group.update({decay: 0.0 for decay in ("weight_decay", "lambd") if decay in group})
            for _ in range(2):
                for p in params:
                    p.grad = torch.zeros_like(p)
                optimizer.step()
            assert all(map(torch.equal, params, before)), kwargs


class TestGroups:
    @every_base
    def test_optimizer_can_be_printed(self, case: Case) -> None:
        for kwargs in case.inputs("cpu"):
            first, *rest = case.parameters("cpu")
            printed = repr(KO([{"params": [first]}, {"params": rest, "gamma": 0.375}], **kwargs))
            assert printed.startswith("KO (\nParameter Group 0\n")
            assert "gamma: 0.375" in printed
            assert "collision: soft" in printed

    @every_base
    def test_defaults(self, case: Case) -> None:
        params = case.parameters("cpu")
        optimizer, reference = case.build(params, lr=0.25), case.base_alone(params, lr=0.25)
        assert {name: optimizer.defaults[name] for name in reference.defaults} == reference.defaults
        own = optimizer.defaults.keys() - reference.defaults.keys()
        assert own - {"foreach"} == {
            *("collision", "gamma", "bounded", "rate", "group_size", "row_dim", "blocks", "skip_idle"),
            *("collision_seed", "collision_step"),
        }
        for group, bare in zip(optimizer.param_groups, reference.param_groups, strict=True):
            assert group.keys() == bare.keys() | optimizer.defaults.keys()

    @every_base
    def test_group_added_later_equals_group_of_the_constructor(self, case: Case) -> None:
        results = []
        for late in (False, True):
            first, *rest = params = case.parameters("cpu")
            groups: list[Any] = [{"params": [first]}, {"params": rest, "lr": 0.05, "gamma": 0.5}]
            optimizer = case.build(groups[:1] if late else groups, lr=0.1)
            if late:
                optimizer.add_param_group(groups[1])
            advance(optimizer, params, range(2))
            settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            results.append((values(params), settings))
        assert all(map(torch.equal, results[0][0], results[1][0]))
        assert results[0][1] == results[1][1]

    @every_base
    def test_lr_schedulers_with_a_closure(self, case: Case) -> None:
        params = case.parameters("cpu")
        optimizer = case.build(params, lr=0.01)
        start = [group["lr"] for group in optimizer.param_groups]
        scheduler = StepLR(optimizer, step_size=1, gamma=0.5)  # warns if the optimizer has not stepped before it
        train(optimizer, params, 3, [scheduler])
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr / 8 for lr in start])


def test_every_named_base_is_in_the_tables() -> None:
    assert len(CASES) == 8 * len(FORMS) + 6
    assert all(len(case.inputs("cpu")) >= 5 for case in CASES.values())


def test_hard_form_of_these_tables_collides() -> None:
    case = CASES["adam-hard"]
    params = case.parameters("cpu")
    optimizer = case.build(params)
    set_gradients(params, 0)
    optimizer.step()
    assert max(optimizer.collision_shares().values()) > 0
