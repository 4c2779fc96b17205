"""torch's tests of optimizer state (state dicts, copies, hooks), applied to KO with each base; test names are those of
torch's test/test_optim.py. In addition, interruptions must not change a run.
"""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ko import KO
from tests.devices import DEVICES
from tests.unit.ko.torch_infos import CASES, FORMS, Case, advance, every_base, every_case, values

STEPS = 4  # of an uninterrupted run


def equal(a: Any, b: Any) -> bool:
    """Bitwise equality of nested containers of tensors; devices may differ."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


class Parameters(nn.Module):
    """A module that only holds parameters."""

    def __init__(self, params: list[nn.Parameter]) -> None:
        super().__init__()
        self.own = nn.ParameterList(params)


@functools.cache
def uninterrupted(case: Case) -> list[Tensor]:
    params = case.parameters("cpu")
    advance(case.build(params), params, range(STEPS))
    return values(params)


class TestInterruptions:
    @pytest.mark.parametrize("step", range(STEPS))
    @every_case
    def test_save_and_load_at_any_step(self, case: Case, step: int) -> None:
        params = case.parameters("cpu")
        optimizer = case.build(params)
        advance(optimizer, params, range(step))
        file = io.BytesIO()
        torch.save((params, optimizer.state_dict()), file)
        file.seek(0)
        restored, state = torch.load(file, weights_only=True)
        resumed = case.build(restored, seed=77)  # loading the state restores the seed
        resumed.load_state_dict(state)
        advance(resumed, restored, range(step, STEPS))
        assert all(map(torch.equal, restored, uninterrupted(case)))

    @pytest.mark.parametrize(
        "copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
    )
    @every_case
    def test_copies_continue_identically(self, case: Case, copier: Callable[[Any], Any]) -> None:
        params = case.parameters("cpu")
        optimizer = case.build(params)
        advance(optimizer, params, range(2))
        restored, copied = copier((params, optimizer))
        advance(copied, restored, range(2, STEPS))
        assert all(map(torch.equal, restored, uninterrupted(case)))

    @pytest.mark.parametrize("flat", [False, True], ids=["nested", "flattened"])
    @every_case
    def test_distributed_checkpoint(self, case: Case, flat: bool) -> None:
        options = StateDictOptions(flatten_optimizer_state_dict=flat)
        model = Parameters(case.parameters("cpu"))
        optimizer = case.build(model.parameters())
        advance(optimizer, list(model.own), range(2))
        optimizer.zero_grad()  # as is usual before saving
        saved = copy.deepcopy((model.state_dict(), get_optimizer_state_dict(model, optimizer, options=options)))
        restored = Parameters(case.parameters("cpu"))
        restored.load_state_dict(saved[0])
        resumed = case.build(restored.parameters(), seed=77)
        set_optimizer_state_dict(restored, resumed, saved[1], options=options)
        for run, ps in ((resumed, restored), (optimizer, model)):
            advance(run, list(ps.own), range(2, STEPS))
            assert all(map(torch.equal, ps.own, uninterrupted(case)))

    @pytest.mark.parametrize("form", FORMS)
    def test_distributed_checkpoint_before_the_first_step(self, form: str) -> None:
        # Reading the state steps the optimizer with zero gradients and rates, which must not change KO on plain SGD.
        case = CASES[f"sgd-{form}"]
        model = Parameters(case.parameters("cpu"))
        optimizer = case.build(model.parameters())
        get_optimizer_state_dict(model, optimizer)
        advance(optimizer, list(model.own), range(STEPS))
        assert all(map(torch.equal, model.own, uninterrupted(case)))


class TestStateDict:
    @every_case
    def test_state_dict_deterministic(self, case: Case) -> None:
        for kwargs in case.inputs("cpu"):
            states = []
            for _ in range(2):
                params = case.parameters("cpu")
                optimizer = KO(params, **kwargs)
                advance(optimizer, params, range(2))
                states.append(copy.deepcopy(optimizer.state_dict()))
                assert equal(states[-1], optimizer.state_dict())
            assert equal(*states)
            advance(optimizer, params, range(2, 3))
            assert not equal(states[-1], optimizer.state_dict())

    @every_base
    def test_can_load_older_state_dict(self, case: Case) -> None:
        for kwargs in case.inputs("cpu"):
            params = case.parameters("cpu")
            optimizer = KO(params, **kwargs)
            advance(optimizer, params, range(2))
            old = copy.deepcopy(optimizer.state_dict())
            for group in old["param_groups"]:
                for flag in case.info.not_og_supported_flags:
                    group.pop(flag, None)
            copied = copy.deepcopy(params)
            restored = KO(copied, **kwargs)
            restored.load_state_dict(old)
            for run, ps in ((optimizer, params), (restored, copied)):
                if not kwargs.get("maximize", False):  # the older state lacks this flag
                    advance(run, ps, range(2, 4))
            assert all(map(torch.equal, params, copied))

    @every_base
    def test_can_load_from_to_named_state_dict(self, case: Case) -> None:
        for named, loads_named in ((True, True), (True, False), (False, True)):
            params = case.parameters("cpu")
            restored = copy.deepcopy(params)
            optimizer, resumed = (
                case.build([(f"p{i}", p) for i, p in enumerate(ps)] if with_names else ps)
                for ps, with_names in ((params, named), (restored, loads_named))
            )
            advance(optimizer, params, range(2))
            with torch.no_grad():
                for p, q in zip(restored, params, strict=True):
                    p.copy_(q)
            resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            assert ("param_names" in resumed.param_groups[0]) == (named or loads_named)
            advance(optimizer, params, range(2, 4))
            advance(resumed, restored, range(2, 4))
            assert all(map(torch.equal, params, restored))

    @every_case
    def test_save_load_equality_with_weights_only(self, case: Case) -> None:
        for kwargs in case.inputs("cpu"):
            params = case.parameters("cpu")
            optimizer = KO(params, **kwargs)
            advance(optimizer, params, range(2))
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            assert equal(torch.load(file, weights_only=True), optimizer.state_dict())

    @every_base
    def test_load_nontensor_step(self, case: Case) -> None:
        params = case.parameters("cpu")
        optimizer = case.build(params)
        advance(optimizer, params, range(2))
        saved = copy.deepcopy(optimizer.state_dict())
        for state in saved["state"].values():
            if "step" in state:
                state["step"] = float(state["step"])
        restored = copy.deepcopy(params)
        resumed = case.build(restored)
        resumed.load_state_dict(saved)
        assert all(isinstance(state.get("step", torch.ones(())), Tensor) for state in resumed.state.values())
        advance(optimizer, params, range(2, 4))
        advance(resumed, restored, range(2, 4))
        assert all(map(torch.equal, params, restored))

    @pytest.mark.parametrize("device", DEVICES)
    @every_case
    def test_state_dict_with_cuda_params(self, case: Case, device: str) -> None:
        params, moved = case.parameters("cpu"), case.parameters(device)
        optimizer, loaded = case.build(params), case.build(moved)
        advance(optimizer, params, range(2))
        loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch copies only tensors that change device
        for p, q in zip(params, moved, strict=True):
            q.data.copy_(p.data)
            for name, value in loaded.state[q].items():
                assert name == "step" or not isinstance(value, Tensor) or value.device == q.device
        advance(optimizer, params, range(2, 4))
        advance(loaded, moved, range(2, 4))
        torch.testing.assert_close(params, moved, check_device=False)

    @pytest.mark.parametrize("device", DEVICES)
    @every_case
    def test_cpu_load_state_dict(self, case: Case, device: str) -> None:
        moved, params = case.parameters(device), case.parameters("cpu")
        optimizer, loaded = case.build(moved), case.build(params)
        advance(optimizer, moved, range(2))
        loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch copies only tensors that change device
        assert all(
            value.device.type == "cpu"
            for state in loaded.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        )
        for p, q in zip(params, moved, strict=True):
            p.data.copy_(q.data)
        advance(loaded, params, range(2, 4))

    @pytest.mark.parametrize("device", DEVICES)
    @every_base
    def test_deepcopy_copies_all_public_attrs(self, case: Case, device: str) -> None:
        for kwargs in case.inputs(device):
            params = case.parameters(device)
            optimizer = KO(params, **kwargs)
            for steps in (range(0), range(2)):
                advance(optimizer, params, steps)
                copied = copy.deepcopy(optimizer)
                for original, other in ((optimizer, copied), (optimizer.base, copied.base)):
                    assert type(original) is type(other)
                    assert public(original) == public(other)
                    assert equal(list(original.state.values()), list(other.state.values()))
                    assert equal(original.param_groups, other.param_groups)
                    # torch adds `differentiable` to the defaults of a copy.
                    assert equal(original.defaults, {name: other.defaults[name] for name in original.defaults})


def public(optimizer: torch.optim.Optimizer) -> set[str]:
    return {name for name in vars(optimizer) if not name.startswith("_")}


@every_base
class TestHooks:
    def test_step_post_hook(self, case: Case) -> None:
        calls: list[Any] = []
        params = case.parameters("cpu")
        optimizer = case.build(params)
        handle = optimizer.register_step_post_hook(lambda o, args, kwargs: calls.append((o, values(params))))
        advance(optimizer, params, range(1))
        assert calls[0][0] is optimizer
        assert all(map(torch.equal, calls[0][1], params))
        handle.remove()
        advance(optimizer, params, range(1))
        assert len(calls) == 1

    def test_step_pre_hook(self, case: Case) -> None:
        calls: list[Any] = []
        params = case.parameters("cpu")
        start = values(params)
        optimizer = case.build(params)
        handle = optimizer.register_step_pre_hook(lambda o, args, kwargs: calls.append((o, values(params))))
        advance(optimizer, params, range(1))
        assert calls[0][0] is optimizer
        assert all(map(torch.equal, calls[0][1], start))
        handle.remove()
        advance(optimizer, params, range(1))
        assert len(calls) == 1

    def test_step_all_hooks(self, case: Case) -> None:
        order: list[int] = []
        params = case.parameters("cpu")
        optimizer = case.build(params)
        handles = [
            register_optimizer_step_pre_hook(lambda *_: order.append(0)),
            register_optimizer_step_post_hook(lambda *_: order.append(5)),
            optimizer.register_step_pre_hook(lambda *_: order.append(1)),
            optimizer.register_step_pre_hook(lambda *_: order.append(2)),
            optimizer.register_step_post_hook(lambda *_: order.append(3)),
            optimizer.register_step_post_hook(lambda *_: order.append(4)),
        ]
        advance(optimizer, params, range(2))
        for handle in handles:
            handle.remove()
        advance(optimizer, params, range(1))
        assert order == [0, 1, 2, 3, 4, 5] * 2

    def test_state_dict_pre_hook(self, case: Case) -> None:
        optimizer = case.build(case.parameters("cpu"))
        order: list[str] = []

        def quarter(o: torch.optim.Optimizer) -> None:
            order.append("first")
            o.param_groups[0]["gamma"] = 0.25

        handle = optimizer.register_state_dict_pre_hook(lambda o: order.append("second"))
        optimizer.register_state_dict_pre_hook(quarter, prepend=True)
        assert optimizer.state_dict()["param_groups"][0]["gamma"] == 0.25
        assert order == ["first", "second"]
        handle.remove()
        optimizer.state_dict()
        assert order == ["first", "second", "first"]

    def test_state_dict_post_hook(self, case: Case) -> None:
        optimizer = case.build(case.parameters("cpu"))
        calls: list[Any] = []

        def note(o: torch.optim.Optimizer, state: dict[str, Any]) -> None:
            assert o is optimizer
            calls.append(state.get("note"))

        optimizer.register_state_dict_post_hook(note)
        optimizer.register_state_dict_post_hook(lambda o, state: {**state, "note": "later"})
        optimizer.register_state_dict_post_hook(lambda o, state: {**state, "note": "first"}, prepend=True)
        assert optimizer.state_dict()["note"] == "later"
        assert calls == ["first"]

    def test_load_state_dict_pre_hook(self, case: Case) -> None:
        optimizer = case.build(case.parameters("cpu"))
        state = optimizer.state_dict()

        def with_gamma(gamma: float) -> Callable[[torch.optim.Optimizer, dict[str, Any]], dict[str, Any]]:
            def hook(o: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
                assert o is optimizer
                return {
                    **state_dict,
                    "param_groups": [{**group, "gamma": gamma} for group in state_dict["param_groups"]],
                }

            return hook

        optimizer.register_load_state_dict_pre_hook(with_gamma(0.25))
        handle = optimizer.register_load_state_dict_pre_hook(with_gamma(0.5))
        optimizer.register_load_state_dict_pre_hook(with_gamma(0.75), prepend=True)
        for expected in (0.5, 0.25):  # the last hook wins
            optimizer.load_state_dict(state)
            assert {group["gamma"] for group in optimizer.param_groups} == {expected}
            handle.remove()

    def test_load_state_dict_post_hook(self, case: Case) -> None:
        optimizer = case.build(case.parameters("cpu"))
        state = copy.deepcopy(optimizer.state_dict())
        for group in state["param_groups"]:
            group["gamma"] = 0.25
        calls: list[Any] = []
        optimizer.register_load_state_dict_post_hook(lambda o: calls.append((2, o.param_groups[0]["gamma"])))
        handle = optimizer.register_load_state_dict_post_hook(lambda o: calls.append((1, o)), prepend=True)
        optimizer.load_state_dict(state)
        assert calls == [(1, optimizer), (2, 0.25)]
        handle.remove()
        optimizer.load_state_dict(state)
        assert len(calls) == 3

    def test_hooks_survive_loading_and_not_copying(self, case: Case) -> None:
        params = case.parameters("cpu")
        optimizer = case.build(params)
        calls: list[int] = []
        optimizer.register_step_post_hook(lambda *_: calls.append(1))
        optimizer.load_state_dict(optimizer.state_dict())
        advance(optimizer, params, range(1))
        copied_params, copied = copy.deepcopy((params, optimizer))
        advance(copied, copied_params, range(1))
        assert len(calls) == 1
