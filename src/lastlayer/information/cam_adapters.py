"""infoCAM from the tools that people have: captum, torchcam, pytorch-grad-cam.

infoCAM is the plain map of another score, the logit less the mean of the others'. A tool that maps
a network's output by its gradient gets that score as output (:class:`ContrastModel`) or as target
(:func:`contrast_target`); one that reads the linear layer gets a layer that gives it
(:func:`contrast_linear`). Gradients through average pooling carry 1/Z, so that maps made of them
are infoCAM over the number Z of cells::

    contrast = ContrastModel(model)
    LayerGradCam(contrast, layer).attribute(images, target=labels)            # captum: infoCAM / Z
    GradCAM(contrast, layer)(label, contrast(images), normalized=False)       # torchcam: the same,
                                                                              # negative cut at 0
    GradCAM(model, [layer])(images, targets=[contrast_target(label)])         # pytorch-grad-cam
    model.fc = contrast_linear(model.fc)                                      # any tool for CAM
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lastlayer._checks import check_choice
from lastlayer.functional.class_maps import METHODS, logit_contrast
from lastlayer.heads import Classifier
from lastlayer.heads.linear import apply_linear, call_hooks, read_weight


class ContrastModel(nn.Module):
    r"""A network whose outputs are what a method maps: the contrasts of its logits.

    .. math:: n_t, \qquad n_t - \tfrac{1}{K-1} \textstyle\sum_{y \ne t} n_y, \qquad
        n_t - \min_y n_y

    Of a :class:`lastlayer.Classifier` these are the linear logits, ``head.classifier``'s.

    Args:
        model: a network that returns (N, K) logits, or a :class:`lastlayer.Classifier`. It is not
            changed; its modules are found as ``model.NAME`` in this one.
        method: ``"cam"``, ``"infocam"`` or ``"infocam+"``.

    Raises:
        ValueError: if the method is unknown.

    Example:
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
        >>> contrasts = ContrastModel(network)(torch.randn(2, 3, 5, 5))
        >>> contrasts.shape, bool(contrasts.sum(1).abs().max() < 1e-5)
        (torch.Size([2, 4]), True)
    """

    def __init__(self, model: nn.Module, method: str = "infocam") -> None:
        super().__init__()
        check_choice("method", method, METHODS)
        self.model, self.method = model, method
        self.training = model.training  # alone: parts of the model may be in another mode

    def forward(self, images: Tensor) -> Tensor:
        """Return the (N, K) contrasts of a batch."""
        if isinstance(self.model, Classifier):
            logits = apply_linear(self.model.head.classifier, self.model.features(images))
        else:
            logits = self.model(images)
        return _contrast(logits, self.method)


def contrast_target(target: int, method: str = "infocam") -> Callable[[Tensor], Tensor]:
    """Return a function from one example's (K,) logits to the contrast of a class.

    Args:
        target: the class.
        method: ``"cam"``, ``"infocam"`` or ``"infocam+"``.

    Returns:
        A callable from (..., K) to (...), as torchcam and pytorch-grad-cam take for targets.

    Raises:
        ValueError: if the method is unknown.

    Example:
        >>> float(contrast_target(0)(torch.tensor([3.0, 1.0, 0.0])))
        2.5
    """
    check_choice("method", method, METHODS)

    def score(output: Tensor) -> Tensor:
        return _contrast(output, method)[..., target]

    return score


@torch.no_grad()
def contrast_linear(linear: nn.Linear) -> nn.Linear:
    r"""Return a linear layer whose plain class maps are infoCAM.

    .. math:: W'_t = W_t - \tfrac{1}{K-1} \textstyle\sum_{y \ne t} W_y, \qquad b' \text{ alike}

    In a network's place of ``linear`` it leaves the order of the classes as it is and multiplies
    the differences of logits by K/(K - 1).

    Args:
        linear: the layer from pooled features to K >= 2 classes.

    Returns:
        A new layer of the same shape, device and dtype; of float32 in place of a quantized one.

    Raises:
        ValueError: if there are fewer than two classes, or the layer has hooks.
        TypeError: if the layer has a forward of its own, as adapters have.

    Example:
        >>> layer = contrast_linear(nn.Linear(3, 4))
        >>> bool(layer.weight.sum(0).abs().max() < 1e-5)
        True
    """
    if hooks := call_hooks(linear):
        raise ValueError(
            f"linear must have no hooks, which its copy would lose; got {', '.join(hooks)}: remove "
            "them first"
        )
    weight, bias = read_weight(linear)
    weight = logit_contrast(weight.T).T
    made = nn.Linear(
        linear.in_features,
        linear.out_features,
        bias=bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    made.weight.copy_(weight)
    if bias is not None:
        made.bias.copy_(logit_contrast(bias))
    return made


def _contrast(logits: Tensor, method: str) -> Tensor:
    if method == "cam":
        return logits
    if method == "infocam":
        return logit_contrast(logits)
    return logits - logits.amin(-1, keepdim=True)
