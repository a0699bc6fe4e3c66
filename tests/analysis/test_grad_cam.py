import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_cnn.analysis.grad_cam import GradCam
from cifar_cnn.analysis.receptive_field import receptive_field
from cifar_cnn.errors import UserError
from cifar_cnn.models import build_model


@pytest.fixture
def images():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Classifier(nn.Module):
    """Two convolutions, then `head` from the maps to the answer."""

    def __init__(self, head):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, padding=1)
        self.classify, self.flat = nn.Linear(8, 5), nn.Linear(512, 5)
        self.head = head

    def maps(self, images):
        return self.second(self.first(images).relu()).relu()

    def forward(self, images):
        return self.head(self, self.maps(images))


def pooled(net, maps):
    return net.classify(maps.mean((2, 3)))


def cam(net, images, classes, units=64):
    """The class's weights times the activations, by the number of units: section 3.1."""
    maps, weights = net.maps(images).detach().numpy(), net.classify.weight.detach().numpy()
    found = [np.einsum("k,khw->hw", weights[c], a) for c, a in zip(classes, maps, strict=True)]
    return np.maximum(np.stack(found), 0) / units


HEADS = {
    "logits": pooled,
    "log-probabilities": lambda net, maps: F.log_softmax(pooled(net, maps), dim=1),
    "probabilities": lambda net, maps: pooled(net, maps).softmax(1),
    "log of probabilities": lambda net, maps: pooled(net, maps).softmax(1).log(),
    "reshaped": lambda net, maps: F.log_softmax(pooled(net, maps)[:, :, None], 1).flatten(1),
    "flattened, then pooled": lambda net, maps: net.classify(maps.flatten(2).mean(2)),
    "channels last": lambda net, maps: net.classify(maps.permute(0, 2, 3, 1).mean((1, 2))),
    "without a batch": lambda net, maps: net.classify(maps.squeeze(0).mean((1, 2)))[None],
    "written in place": lambda net, maps: net.classify(maps.relu_().mean((2, 3))),
    "rows and columns changed": lambda net, maps: pooled(net, maps.transpose(2, 3).relu()),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_behind_global_average_pooling_it_is_cam(images, head):
    net = Classifier(head).eval()
    classes = [0, 3, 4]
    heat = GradCam(net, (16, 16))(images, classes)
    assert heat.dtype == np.float32
    np.testing.assert_allclose(heat, cam(net, images, classes), rtol=1e-5, atol=1e-8)


def test_behind_flattening_it_is_the_papers_formula(images):
    net = Classifier(lambda net, maps: net.flat(maps.flatten(1))).eval()
    maps = net.maps(images).detach().numpy()
    gradient = net.flat.weight.detach().numpy()[2].reshape(8, 8, 8)
    expected = np.maximum((gradient.mean((1, 2))[:, None, None] * maps).sum(1), 0)
    heat = GradCam(net, (16, 16))(images, [2, 2, 2])
    np.testing.assert_allclose(heat, expected, rtol=1e-5, atol=1e-7)


def test_of_the_built_in_network_it_is_cam_on_the_last_map():
    torch.manual_seed(0)
    net = build_model("baseline", num_classes=4).eval()
    images = torch.randn(2, 3, 32, 32)
    explain = GradCam(net, (32, 32))
    assert explain.layer == receptive_field(net).features.layer
    assert explain.size == (4, 4)
    with torch.no_grad():
        chain = nn.Sequential(net.convblock1, net.convblock2, net.convblock3, net.convblock4)
        net.convblock5[0].weight[1] += 0.05  # fresh weights may speak against every class
        maps, weights = chain(images), net.convblock5[0].weight[[1, 3], :, 0, 0]
        expected = torch.einsum("nk,nkhw->nhw", weights, maps).relu() / 16
    assert expected[0].all()
    np.testing.assert_allclose(explain(images, [1, 3]), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("net", "peak"),
    [
        (nn.Conv2d(3, 2, 3, 4, 1), (4, 8)),  # centers 0, 4, 8, 12
        (nn.Conv2d(3, 2, 4, 4), (6, 10)),  # 1.5, 5.5, 9.5, 13.5: between two pixels
        (nn.Sequential(nn.Conv2d(3, 2, 4, 4), nn.Softmax2d()), (6, 10)),
    ],
)
def test_heat_lies_where_its_units_look(net, peak):
    explain = GradCam(nn.Sequential(net, nn.Flatten()), (16, 16))
    heat = np.zeros((1, 4, 4), np.float32)
    heat[0, 1, 2] = 1
    spread = explain.over_images(heat)[0]
    assert spread.shape == (16, 16)
    assert spread[peak] == spread.max()
    assert not spread[:, 14:].any()


def test_units_that_all_see_the_whole_image_fill_it_evenly(net):
    def forward(n, x):
        x = n.patches(x)
        return n.mix(x.flatten(2)).view_as(x).relu().mean((2, 3))

    model = net(forward, patches=nn.Conv2d(3, 2, 4, 4), mix=nn.Linear(16, 16))
    heat = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    expected = F.interpolate(torch.from_numpy(heat)[None], (16, 16), mode="bilinear")[0]
    found = GradCam(model, (16, 16)).over_images(heat)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_units_that_are_filled_in_by_hand_heat_no_pixel(net):
    def forward(n, x):
        padded = torch.zeros(1, 2, 6, 6)
        padded[:, :, 1:-1, 1:-1] = n.patches(x)
        return padded.flatten(1)

    patches = nn.Conv2d(3, 2, 4, 4)
    heat = np.arange(36, dtype=np.float32).reshape(1, 6, 6)
    found = GradCam(net(forward, patches=patches), (16, 16)).over_images(heat)
    without = GradCam(nn.Sequential(patches, nn.Flatten()), (16, 16))
    np.testing.assert_allclose(found, without.over_images(heat[:, 1:-1, 1:-1]), rtol=1e-6)


def test_the_network_stays_as_it_is(images):
    net = Classifier(pooled).train()
    net.second.eval()
    net.first.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    GradCam(net, (16, 16))(images, [0, 0, 0])
    assert (net.training, net.first.training, net.second.training) == (True, True, False)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("net", "layer", "size"),
    [
        (Classifier(lambda net, maps: pooled(net, torch.special.erf(maps))), "special_erf", (8, 8)),
        (nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Conv2d(4, 5, 12), nn.Flatten()), "1",
         (12, 12)),
    ],
    ids=["unknown operation", "map of one unit"],
)  # fmt: skip
def test_the_last_map_of_several_units_is_explained(images, net, layer, size):
    explain = GradCam(net, (16, 16))
    assert (explain.layer, explain.size) == (layer, size)
    assert explain(images, [0, 1, 2]).shape == (3, *size)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), "needs a map before .* Sequential has"),
        (
            Classifier(lambda net, maps: pooled(net, maps.detach())),
            "needs the gradient of the answer at",
        ),
        (Classifier(torch.no_grad()(pooled)), "lets none through"),
    ],
)
def test_a_network_that_cannot_be_explained_is_one_line(images, net, message):
    with pytest.raises(UserError, match=message) as caught:
        GradCam(net, (16, 16))(images, [0, 0, 0])
    assert caught.value.exit_status == 1
    assert "\n" not in str(caught.value)
