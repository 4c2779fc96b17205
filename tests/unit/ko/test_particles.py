"""Which rows of a model's parameters are neurons, and how they collide."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from ko import KO, collisions, param_groups
from ko.particles import as_matrices, from_matrices


def tag_of(model: nn.Module, name: str, **options: Any) -> dict[str, Any]:
    """The options of the parameter group that holds a parameter."""
    for group in param_groups(model, **options):
        if name in [n for n, _ in group["params"]]:
            return {key: value for key, value in group.items() if key != "params"}
    raise AssertionError(f"{name} is in no group")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 4)
        self.head = nn.Linear(4, 20)
        self.head.weight = self.words.weight


class Gates(nn.LSTM):
    pass


class Conv1D(nn.Module):
    """The linear layer of GPT-2 in transformers: the weight is (in, out)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.ones(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))


def old_weight_norm(module: nn.Module, name: str = "weight") -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module, name)  # type: ignore[no-any-return]


def old_spectral_norm(module: nn.Module, name: str) -> nn.Module:
    return nn.utils.spectral_norm(module, name)


def pruned(module: nn.Module, name: str) -> nn.Module:
    return prune.random_unstructured(module, name, 0.5)  # type: ignore[no-any-return]


class Scale(nn.Module):
    """A parametrization by a direction and, after it, the lengths of its rows."""

    def forward(self, direction: Tensor, lengths: Tensor) -> Tensor:
        return direction * lengths

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight, torch.ones(len(weight), 1)


def scaled(module: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(module, "weight", Scale())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.proj = nn.Linear(4, 4)


NONE = {"collision": "none"}


class TestParamGroups:
    @pytest.mark.parametrize(
        ("module", "name", "tag"),
        [
            (nn.Linear(3, 4), "weight", {}),
            (nn.Linear(3, 4), "bias", NONE),
            (nn.Conv2d(3, 4, 3), "weight", {}),
            (nn.Conv2d(4, 8, 3, groups=2), "weight", {"blocks": 2}),
            (nn.Conv2d(4, 8, 3, groups=4), "weight", NONE),
            (nn.ConvTranspose2d(3, 4, 3), "weight", {"row_dim": 1}),
            (nn.ConvTranspose2d(4, 8, 3, groups=2), "weight", {"row_dim": 1, "blocks": 2}),
            (nn.ConvTranspose1d(4, 8, 3, groups=4), "weight", NONE),
            (nn.Embedding(9, 4), "weight", NONE),
            (nn.EmbeddingBag(9, 4), "weight", NONE),
            (nn.LayerNorm([3, 4]), "weight", NONE),
            (nn.BatchNorm2d(3), "weight", NONE),
            (nn.GroupNorm(2, 4), "bias", NONE),
            (nn.RMSNorm([3, 4]), "weight", NONE),
            (nn.LSTM(3, 4, proj_size=2), "weight_ih_l0", {"blocks": 4}),
            (nn.LSTM(3, 4, proj_size=2), "weight_hh_l0", {"blocks": 4}),
            (nn.LSTM(3, 4, proj_size=2), "weight_hr_l0", {}),
            (nn.LSTM(3, 4), "bias_ih_l0", NONE),
            (nn.GRU(3, 4, bidirectional=True), "weight_hh_l0_reverse", {"blocks": 3}),
            (nn.GRUCell(3, 4), "weight_ih", {"blocks": 3}),
            (nn.LSTMCell(3, 4), "weight_ih", {"blocks": 4}),
            (nn.RNN(3, 4), "weight_ih_l0", {}),
            (nn.MultiheadAttention(4, 2), "in_proj_weight", {"blocks": 3}),
            (nn.MultiheadAttention(4, 2, kdim=3, vdim=5), "k_proj_weight", {}),
            (nn.MultiheadAttention(4, 2), "out_proj.weight", {}),
            (nn.Bilinear(2, 3, 4), "weight", {}),
            (Gates(3, 4), "weight_ih_l0", {"blocks": 4}),
            (weight_norm(nn.ConvTranspose2d(3, 4, 3)), "parametrizations.weight.original0", NONE),
            (weight_norm(nn.ConvTranspose2d(3, 4, 3)), "parametrizations.weight.original1", {"row_dim": 1}),
            (weight_norm(nn.Conv2d(4, 4, 3, groups=4)), "parametrizations.weight.original1", NONE),
            (old_weight_norm(nn.Linear(3, 4)), "weight_g", NONE),
            (old_weight_norm(nn.ConvTranspose2d(3, 4, 3)), "weight_v", {"row_dim": 1}),
            (orthogonal(nn.Linear(3, 4)), "parametrizations.weight.original", {}),
            (spectral_norm(nn.Embedding(9, 4)), "parametrizations.weight.original", NONE),
            *(
                (weight_norm(nn.LSTM(8, 64), "weight_hh_l0"), f"parametrizations.weight_hh_l0.original{n}", tag)
                for n, tag in enumerate((NONE, {"blocks": 4}))
            ),
            *(
                (old_weight_norm(nn.GRU(1, 8), "weight_ih_l0"), f"weight_ih_l0_{part}", tag)
                for part, tag in (("g", NONE), ("v", {"blocks": 3}))
            ),
            (spectral_norm(nn.GRU(3, 4), "weight_hh_l0"), "parametrizations.weight_hh_l0.original", {"blocks": 3}),
            (old_spectral_norm(nn.LSTMCell(3, 4), "weight_hh"), "weight_hh_orig", {"blocks": 4}),
            (pruned(nn.MultiheadAttention(4, 2), "in_proj_weight"), "in_proj_weight_orig", {"blocks": 3}),
            (pruned(nn.Linear(3, 4), "weight"), "weight_orig", {}),
            *(
                (scaled(nn.Linear(3, 4)), f"parametrizations.weight.original{n}", tag)
                for n, tag in ((0, {}), (1, NONE))
            ),
            (Conv1D(12, 4), "weight", {"row_dim": 1}),
            (Tied(), "words.weight", {}),
            (nn.ParameterDict({"table": torch.ones(3, 4)}), "table", {}),
            (nn.ParameterDict({"gamma": torch.ones(4, 1, 1)}), "gamma", {"collision": "none"}),
            (nn.Linear(1, 4), "weight", {}),
            (nn.Conv2d(1, 4, 1), "weight", {}),
        ],
    )
    def test_row_options_of_modules(self, module: nn.Module, name: str, tag: dict[str, Any]) -> None:
        assert tag_of(module, name) == tag

    def test_embeddings_collide_if_requested(self) -> None:
        assert tag_of(nn.Embedding(9, 4), "weight", embeddings=True) == {"group_size": 64, "skip_idle": True}
        assert tag_of(Tied(), "words.weight", embeddings=True) == {}  # it is also the head, whose rows all collide

    def test_weights_that_are_not_parameters_are_ignored(self) -> None:
        model = nn.Linear(3, 4)
        weight = model.weight.detach()
        del model.weight
        model.register_buffer("weight", weight)
        assert [name for group in param_groups(model) for name, _ in group["params"]] == ["bias"]

    def test_raises_error_for_non_modules_and_flattened_parameters(self) -> None:
        with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, not generator"):
            param_groups(nn.Linear(2, 2).parameters())  # type: ignore[arg-type]
        model = nn.Linear(2, 2)
        model.bias._is_flat_param = True  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match=r"model: .* use fully_shard \(FSDP2\)"):
            param_groups(model)

    def test_stacked_matches_parameter_names(self) -> None:
        model = nn.ModuleList([Attention(), Attention()])
        assert tag_of(model, "1.qkv.weight", stacked={"*.qkv.weight": 3}) == {"blocks": 3}
        assert tag_of(model, "1.proj.weight", stacked={"*.qkv.weight": 3}) == {}
        with pytest.raises(ValueError, match=r"stacked: '\*\.q\.weight' matches no parameter"):
            param_groups(model, stacked={"*.q.weight": 3})
        with pytest.raises(ValueError, match=r"stacked: 0\.qkv\.weight of shape \(12, 4\) cannot be split into 5"):
            param_groups(model, stacked={"*.qkv.weight": 5})

    def test_groups_contain_every_parameter_once_and_all_options(self) -> None:
        model = nn.Sequential(nn.Embedding(9, 4), nn.LSTM(4, 4), nn.Linear(4, 3), Tied())
        groups = param_groups(model, lr=0.5)
        names = [name for group in groups for name, _ in group["params"]]
        assert sorted(names) == sorted(name for name, _ in model.named_parameters())
        assert all(group["lr"] == 0.5 for group in groups)
        assert len(groups) == 3  # plain, not collided, four gates
        optimizer = KO(groups, base="muon")
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)


class TestMatrices:
    @pytest.mark.parametrize(
        ("shape", "row_dim", "blocks", "expected"),
        [
            ((6, 5), 0, 1, (1, 6, 5)),
            ((6, 5, 2, 3), 0, 1, (1, 6, 30)),
            ((6, 5), 0, 3, (3, 2, 5)),
            ((6, 5, 2, 3), 1, 1, (1, 5, 36)),
            ((6, 5, 2, 3), 1, 2, (2, 5, 18)),
        ],
    )
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_from_matrices_inverts_as_matrices(
        self, shape: tuple[int, ...], row_dim: int, blocks: int, expected: tuple[int, ...], channels_last: bool
    ) -> None:
        tensor = torch.arange(float(torch.Size(shape).numel())).view(shape)
        if channels_last and tensor.ndim == 4:
            tensor = tensor.to(memory_format=torch.channels_last)
        rows = as_matrices(tensor, row_dim, blocks)
        assert rows.shape == expected
        inverted = from_matrices(rows, tensor, row_dim, blocks)
        assert torch.equal(inverted, tensor)
        assert inverted.stride() == tensor.stride()

    def test_transposed_convolution_has_one_row_per_output_channel(self) -> None:
        weight = torch.randn(4, 6, 3, 3)  # (in, out, kh, kw)
        assert torch.equal(as_matrices(weight, row_dim=1)[0, 2], weight[:, 2].flatten())


def step(model: nn.Module, groups: Any, **options: Any) -> None:
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=p.dtype)
    KO(groups, lr=1.0, base="sgd", seed=2, **options).step()


class TestCollides:
    @pytest.mark.parametrize("form", [{"gamma": 0.3}, {"gamma": 9.0, "bounded": True}, {"gamma": 0.3, "group_size": 2}])
    def test_gates_do_not_interact(self, form: dict[str, Any]) -> None:
        model = nn.LSTM(3, 5).double()
        before = model.weight_ih_l0.detach().clone()
        step(model, param_groups(model), **form)
        grad = model.weight_ih_l0.grad
        assert grad is not None
        if "group_size" not in form:
            moved = torch.cat(
                [collisions.soft(*gate, **form) for gate in zip(before.chunk(4), grad.chunk(4), strict=True)]
            )
            torch.testing.assert_close(before - model.weight_ih_l0.detach(), moved)
        together = collisions.soft(before, grad, form["gamma"], form.get("bounded", False))
        assert not torch.allclose(before - model.weight_ih_l0.detach(), together)

    def test_transposed_convolution_collides_output_channels(self) -> None:
        model = nn.ConvTranspose2d(3, 5, 2).double()
        before = model.weight.detach().clone()
        step(model, param_groups(model), gamma=0.3)
        assert model.weight.grad is not None
        w, g = (t.transpose(0, 1).flatten(1) for t in (before, model.weight.grad))
        moved = collisions.soft(w, g, 0.3).view(5, 3, 2, 2).transpose(0, 1)
        torch.testing.assert_close(before - model.weight.detach(), moved)

    def test_leaving_out_rows_without_gradient_is_exact(self) -> None:
        # The vocabulary is large enough for the search for rows without gradient; the batch has 5 of its words.
        model = nn.Embedding(5000, 4).double()
        words = torch.tensor([3, 4000, 17, 4999, 42])
        before = model.weight.detach().clone()
        for options in ({}, {"bounded": True}, {"group_size": 2, "gamma": 0.0}, {"maximize": True}):
            with torch.no_grad():
                model.weight.copy_(before)
            model.weight.grad = torch.zeros_like(before)
            generator = torch.Generator().manual_seed(1)
            model.weight.grad[words] = torch.randn(5, 4, generator=generator, dtype=torch.float64)
            grad = model.weight.grad.clone()
            KO(model.parameters(), lr=1.0, base="sgd", **options).step()  # type: ignore[arg-type]
            expected = grad.clone()
            if options.get("gamma") != 0.0:
                bounded = bool(options.get("bounded", False))
                expected[words] = collisions.soft(before[words], grad[words], 0.1, bounded)
            change = (model.weight.detach() - before) if options.get("maximize") else (before - model.weight.detach())
            torch.testing.assert_close(change, expected)
            assert torch.equal(model.weight.grad, grad)

    @pytest.mark.parametrize("form", [{"gamma": 0.3}, {"collision": "hard", "rate": 1e9}])
    def test_words_absent_from_the_batch_are_left_out(self, form: dict[str, Any]) -> None:
        model = nn.Embedding(50, 4).double()
        optimizer = KO(param_groups(model, embeddings=True), lr=1.0, base="sgd", seed=0, **form)
        before = model.weight.detach().clone()
        with torch.no_grad():
            model.weight.zero_()  # at distance 0, all words can collide
        model.weight.grad = torch.zeros_like(before)
        model.weight.grad[::2] = torch.randn(25, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        optimizer.step()
        assert not model.weight[1::2].any()
        assert model.weight[::2].any(dim=1).all()

    def test_embeddings_train_in_random_batches(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.EmbeddingBag(6000, 8), nn.Linear(8, 2))
        optimizer = KO(param_groups(model, embeddings=True), lr=0.05)
        words, labels = torch.randint(0, 6000, (64, 10)), torch.randint(0, 2, (64,))
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(words), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] / 2

    @pytest.mark.parametrize("base", ["sgd", "adam", "muon"])
    def test_training_is_equivariant_under_permutation_of_neurons(self, base: str) -> None:
        # The same network with its hidden neurons in another order trains to the same network in that order.
        order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
        x, y = torch.randn(30, 4, dtype=torch.float64), torch.randint(0, 3, (30,))

        def train(permuted: bool) -> list[Tensor]:
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()
            first, last = model[0], model[2]
            if permuted:
                with torch.no_grad():
                    first.weight.copy_(first.weight[order])
                    first.bias.copy_(first.bias[order])
                    last.weight.copy_(last.weight[:, order])
            optimizer = KO(param_groups(model), lr=0.05, base=base, gamma=0.2)
            for _ in range(5):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            return [first.weight.detach(), last.weight.detach()]

        plain, renumbered = train(False), train(True)
        # Muon orthogonalizes in bfloat16, whose sums depend on their order.
        tolerance = {"rtol": 0, "atol": 2e-2} if base == "muon" else {"rtol": 1e-6, "atol": 1e-9}
        torch.testing.assert_close(renumbered[0], plain[0][order], **tolerance)  # type: ignore[arg-type]
        torch.testing.assert_close(renumbered[1], plain[1][:, order], **tolerance)  # type: ignore[arg-type]


class TestBadLayouts:
    @pytest.mark.parametrize(
        ("group", "message"),
        [
            ({"row_dim": 2}, r"row_dim of parameter group 0: 2 is not a dimension of a parameter of shape \(6, 4\)"),
            ({"row_dim": -1}, "row_dim of parameter group 0: expected an integer >= 0, not -1"),
            (
                {"blocks": 4},
                r"blocks of parameter group 0: shape \(6, 4\) cannot be split into 4 equal matrices",
            ),
            ({"skip_idle": 1}, "skip_idle of parameter group 0: expected True or False, not 1"),
            ({"blocks": 0}, "blocks of parameter group 0: expected an integer >= 1, not 0"),
            ({"group_size": 1}, "group_size of parameter group 0: expected an integer >= 2, not 1"),
            ({"group_size": 2.5}, r"group_size of parameter group 0: expected an integer >= 2, not 2\.5"),
            ({"group_size": float("inf")}, "group_size of parameter group 0: expected an integer >= 2, not inf"),
        ],
    )
    def test_invalid_layout_raises_value_error(self, group: dict[str, Any], message: str) -> None:
        p = nn.Parameter(torch.ones(6, 4))
        with pytest.raises(ValueError, match=message):
            KO([{"params": [p], **group}])
        optimizer = KO([nn.Parameter(torch.ones(2, 2))])
        with pytest.raises(ValueError, match=message.replace("group 0", "group 1")):
            optimizer.add_param_group({"params": [p], **group})
        assert len(optimizer.param_groups) == 1

    def test_flattened_parameter_raises_value_error(self) -> None:
        p = nn.Parameter(torch.ones(24))
        p._is_flat_param = True  # type: ignore[attr-defined]  # as FullyShardedDataParallel marks it
        with pytest.raises(ValueError, match=r"params of parameter group 0: .* use fully_shard \(FSDP2\)"):
            KO([p])
        KO([p], collision="none")
