"""Training on CUDA equals training on the CPU."""

import pytest
import torch
from torch import nn

from ko import KO


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: KO is tested on the CPU only")
@pytest.mark.parametrize("options", [{}, {"bounded": True}, {"group_size": 16}, {"collision": "hard", "rate": 50.0}])
def test_training_on_cuda_equals_training_on_the_cpu(options: dict[str, object]) -> None:
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5)).double()
        x, y = torch.randn(32, 20, dtype=torch.float64), torch.randint(0, 5, (32,))
        model.to(device)
        optimizer = KO(model.parameters(), lr=1e-2, seed=1, **options)  # type: ignore[arg-type]
        for _ in range(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x.to(device)), y.to(device)).backward()
            optimizer.step()
        results.append(torch.cat([p.detach().flatten().cpu() for p in model.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-8)
