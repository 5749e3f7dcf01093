"""The random numbers of training."""

import pytest
import torch

from models import noise


@pytest.mark.parametrize("p", [0.1, 0.3, 0.75])
def test_dropout_keeps_the_mean_and_drops_its_share(p):
    torch.manual_seed(0)
    x = torch.ones(300, 40, 41, requires_grad=True)
    y = noise.dropout(x, p)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p)).item()}
    assert abs((y == 0).float().mean() - p) < 4 * (p * (1 - p) / x.numel()) ** 0.5
    # each of the four entries that one integer decides is as good as the others
    for part in (y == 0).flatten()[: x.numel() // 4 * 4].view(-1, 4).unbind(1):
        assert abs(part.float().mean() - p) < 4 * (p * (1 - p) / part.numel()) ** 0.5
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_no_dropout_in_evaluation():
    x = torch.randn(3, 4)
    assert noise.dropout(x, 0.5, False) is x
    assert noise.Dropout(0.5).eval()(x) is x


@pytest.mark.parametrize("draw", [noise.normal_like, lambda x: noise.dropout(x, 0.5)])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_divided_batch_draws_what_the_whole_one_does(draw, rows, monkeypatch):
    x = torch.ones(rows * 7, 5)
    torch.manual_seed(1)
    whole, parts = draw(x), []
    for first, end in ((0, 4), (4, 7)):
        monkeypatch.setattr(noise, "batch_part", (first, end, 7))
        torch.manual_seed(1)
        parts.append(draw(x[rows * first : rows * end]))
    assert torch.equal(torch.cat(parts), whole)
