"""Swap the last linear layer of any network for a head, and keep the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lastlayer.heads.base import Head
from lastlayer.heads.catalog import build_head
from lastlayer.heads.output import HeadOutput


class Classifier(nn.Module):
    """A backbone and a head; evaluated, an ordinary network that returns log-probabilities.

    Args:
        backbone: maps inputs to (*, D) features.
        head: maps features to class probabilities.

    Example:
        >>> from lastlayer.heads import Softmax
        >>> model = Classifier(nn.Flatten(), Softmax(in_features=64, num_classes=10))
        >>> model.eval()(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def features(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the backbone's features of an input."""
        features = self.backbone(*args, **kwargs)
        if not isinstance(features, Tensor):
            # transformers' models return an output object that carries the replaced layer's output.
            features = getattr(features, "logits", features)
        if not isinstance(features, Tensor):
            raise TypeError(
                "backbone must return a tensor of features (or an object whose .logits is one); "
                f"got {type(features).__name__}"
            )
        return features

    def forward(
        self, *args: Any, target: Tensor | None = None, **kwargs: Any
    ) -> HeadOutput | Tensor:
        """Return the head's output for an input.

        Args:
            *args: inputs of the backbone.
            target: labels; with them the result is the head's :class:`HeadOutput`.
            **kwargs: keyword inputs of the backbone.

        Returns:
            :class:`HeadOutput` with a target, else (*, K) log-probabilities.
        """
        return self.head(self.features(*args, **kwargs), target)  # type: ignore[no-any-return]

    def param_groups(self, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Return optimizer groups: everything decayed but the head's own exceptions."""
        groups = self.head.param_groups(weight_decay)
        groups[0]["params"] = [*self.backbone.parameters(), *groups[0]["params"]]
        return groups


def attach(
    model: nn.Module, head: str | Head, *, layer: str | None = None, **options: Any
) -> Classifier:
    """Replace a network's last ``nn.Linear`` by a head.

    The head takes over the layer's width, number of classes, device and dtype; a head built here
    also starts from its weights, so that a trained softmax network predicts as before.

    Args:
        model: any network that applies one ``nn.Linear`` last. It is changed in place: the layer
            becomes ``nn.Identity``.
        head: a name of ``lastlayer list heads``, or a head of the right width.
        layer: dotted name of the layer; found if the network has one candidate only.
        **options: further arguments of a head given by name; ``num_classes`` to change it.

    Returns:
        ``Classifier(backbone, head)``.

    Raises:
        ValueError: if the layer is missing or ambiguous (the candidates are listed), or does not
            fit the head.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> model = attach(network, "dropmax", layer="2")
        >>> model.eval()(torch.randn(2, 4)).shape
        torch.Size([2, 3])
    """
    name, linear = _find_layer(model, layer)
    if isinstance(head, str):
        num_classes = options.pop("num_classes", linear.out_features)
        built = build_head(
            head,
            linear.in_features,
            num_classes,
            device=linear.weight.device,
            dtype=linear.weight.dtype,
            **({"bias": linear.bias is not None} | options),
        )
        if num_classes == linear.out_features:
            _copy_weights(linear, built.classifier)
            built._start_as_softmax()
    elif options:
        raise ValueError(f"options {sorted(options)} are for a head given by name")
    else:
        built = head
    if built.in_features != linear.in_features:
        raise ValueError(
            f"head must take the {linear.in_features} features of layer {name!r}; "
            f"it takes {built.in_features}"
        )
    if name:
        parent_name, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent_name), leaf, nn.Identity())
        return Classifier(model, built)
    return Classifier(nn.Identity(), built)


def _find_layer(model: nn.Module, layer: str | None) -> tuple[str, nn.Linear]:
    candidates = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    listed = "\n".join(
        f"  {n or '(the model itself)'}: Linear({m.in_features}, {m.out_features})"
        for n, m in candidates.items()
    )
    if not candidates:
        raise ValueError(
            f"model {type(model).__name__} has no nn.Linear to replace; build "
            "lastlayer.Classifier(backbone, head) yourself"
        )
    if layer is not None:
        if layer not in candidates:
            raise ValueError(f"layer {layer!r} is not an nn.Linear of the model; it has\n{listed}")
        return layer, candidates[layer]
    named = [n for n in _CONVENTIONAL if n in candidates]
    if len(candidates) == 1 or len(named) == 1:
        name = named[0] if len(named) == 1 else next(iter(candidates))
        return name, candidates[name]
    raise ValueError(
        f"model has {len(candidates)} nn.Linear layers and which one is last cannot be told; "
        f"name it with layer=...\n{listed}"
    )


def _copy_weights(source: nn.Linear, classifier: nn.Linear) -> None:
    with torch.no_grad():
        classifier.weight.copy_(source.weight)
        if classifier.bias is not None and source.bias is not None:
            classifier.bias.copy_(source.bias)
        elif classifier.bias is not None:  # the layer had none: start from its value, 0
            classifier.bias.zero_()


# What torchvision, timm and transformers call the last layer; the top level of the model only.
_CONVENTIONAL = ("fc", "classifier", "head", "heads.head", "head.fc", "logits", "score")
