"""Swap the last linear layer of any network for a head, and keep the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lastlayer._checks import check_count
from lastlayer._inputs import Inputs, batches, call, evaluating, num_examples, to_weight
from lastlayer.heads.after_layer import LayerOutput, as_features, refuse_layers_behind
from lastlayer.heads.base import Head
from lastlayer.heads.catalog import build_head
from lastlayer.heads.interface import HeadOutput
from lastlayer.heads.last_layer import (
    check_replaceable,
    find_layer,
    refuse_other_tasks,
    refuse_wrapped,
    warn_of_losses,
)


class Classifier(nn.Module):
    """A backbone and a head; evaluated, an ordinary network that returns log-probabilities.

    It starts in the backbone's mode, training or evaluation, and puts the head in it too.

    Args:
        backbone: maps inputs to (*, D) features.
        head: maps features to class probabilities.

    Example:
        >>> from lastlayer.heads import Softmax
        >>> model = Classifier(nn.Flatten(), Softmax(in_features=64, num_classes=10))
        >>> model.eval()(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    #: The loss is a mean over the batch: transformers' Trainer need not pass the number of labels.
    accepts_loss_kwargs = False
    _after: LayerOutput | None = None

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head.train(backbone.training)
        self.training = backbone.training  # train() would reach frozen parts of the backbone

    def features(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the backbone's features of an input."""
        if self._after is None:
            return as_features(self.backbone(*args, **kwargs))
        return as_features(self._after.run(self.backbone, args, kwargs))

    @torch.no_grad()
    def features_of(self, inputs: Inputs, batch_size: int = 500) -> Tensor:
        """Return the features of many inputs, batch by batch, without noise and gradient.

        The backbone is in evaluation mode meanwhile, and afterward as it was. Each batch is brought
        to the device of the classifier's first floating-point parameter, and floating-point inputs
        to its dtype.

        Args:
            inputs: N rows of one tensor, of every tensor of a tuple (positional arguments of the
                backbone), or of a mapping of names to tensors (keyword arguments).
            batch_size: rows at a time, at least 1.

        Returns:
            (N, *, D) features on the CPU.

        Raises:
            TypeError: if ``inputs`` are something else.
            ValueError: if ``batch_size`` is below 1, or there is no row.

        Example:
            >>> from lastlayer.heads import Softmax
            >>> model = Classifier(nn.Flatten(), Softmax(in_features=64, num_classes=10)).double()
            >>> model.features_of(torch.zeros(7, 1, 8, 8), batch_size=3).dtype
            torch.float64
        """
        check_count("batch_size", batch_size)
        if num_examples(inputs) == 0:
            raise ValueError("inputs must hold at least one example; got none")
        weight = next(p for p in self.parameters() if p.is_floating_point())
        with evaluating(self.backbone):
            parts = (to_weight(batch, weight) for batch in batches(inputs, batch_size))
            return torch.cat([call(self.features, part).cpu() for part in parts])

    def forward(
        self,
        *args: Any,
        target: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> HeadOutput | Tensor | dict[str, Tensor]:
        """Return the head's output for an input.

        Args:
            *args: inputs of the backbone.
            target: labels; with them the result is the head's :class:`HeadOutput`.
            labels: labels under the name that transformers' ``Trainer`` gives them; with them the
                result is what it reads, ``{"loss": ...}``, and in evaluation mode also
                ``"logits"``: (*, K) log-probabilities. They do not reach the backbone.
            **kwargs: keyword inputs of the backbone.

        Returns:
            :class:`HeadOutput` with a target, else (*, K) log-probabilities.

        Raises:
            ValueError: if an attached network does not end as :func:`attach` says, or both
                ``target`` and ``labels`` are given.
            TypeError: if the backbone returns something that has no features.
        """
        if labels is None:
            return self.head(self.features(*args, **kwargs), target)  # type: ignore[no-any-return]
        if target is not None:
            raise ValueError("target and labels are two names of one thing; got both")
        if not args and not kwargs:
            raise ValueError(
                "labels came without inputs: transformers' Trainer leaves out columns that forward "
                "does not name; give it TrainingArguments(remove_unused_columns=False)"
            )
        features = self.features(*args, **kwargs)
        output = {"loss": self.head(features, labels).loss}
        return output if self.training else output | {"logits": self.head.log_prob(features)}

    def param_groups(self, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Return optimizer groups: everything decayed but the head's own exceptions.

        A parameter that backbone and head share (a tied embedding) is in the head's group.
        """
        groups = self.head.param_groups(weight_decay)
        own = {id(p) for group in groups for p in group["params"]}
        others = [p for p in self.backbone.parameters() if id(p) not in own]
        groups[0]["params"] = [*others, *groups[0]["params"]]
        return groups


def attach(
    model: nn.Module, head: str | Head, *, layer: str | None = None, **options: Any
) -> Classifier:
    r"""Replace a network's last ``nn.Linear`` by a head.

    The head takes over the layer's width, number of classes, device and dtype. A head built here
    also starts from its weights, so that a trained softmax network predicts as before, wherever
    ``model.head.keeps_softmax``: not for sparsemax and entmax, LDAM, the prior that
    ``logit-adjusted`` takes out, nor for DropMax predicting by random masks (``docs/attach.md``
    has the table). Retain branches start at zero, where they cancel.

    What follows the layer must commute with it, :math:`g(W h + b) = W g(h) + b`: selecting tokens,
    reshaping, averaging. The first forward pass in training mode and the first in evaluation mode
    look at it, beside the pass itself, and raise if the output goes through a softmax, another
    layer or a second classifier. ``torch.compile``, ``torch.export``, ``jit.trace`` and
    ``torch.func`` look at nothing: call the model once before.

    Args:
        model: any network that applies one ``nn.Linear`` last. It is changed in place: the layer
            becomes ``nn.Identity``.
        head: a name of ``lastlayer list heads``, or a head of the right width.
        layer: dotted name of the layer; found if the network says which it is (timm), has it under
            a customary name of torchvision, timm or transformers, or has one candidate only.
        **options: further arguments of a head given by name; ``num_classes`` to change it.

    Returns:
        ``Classifier(backbone, head)``.

    Raises:
        ValueError: if the layer is missing or ambiguous (the candidates are listed), is followed
            by another one in an ``nn.Sequential``, or does not fit the head; if it has hooks, a
            forward of its own or no size yet; if ``model.config`` asks for several labels.
        TypeError: if the layer's weights are quantized or sharded, or the network is compiled,
            scripted, wrapped for several devices, or has a head already.

    Warns:
        UserWarning: if the layer is parametrized, or shares a parameter with another: the head
            starts from the values alone.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> model = attach(network, "dropmax", layer="2")
        >>> model.eval()(torch.randn(2, 4)).shape
        torch.Size([2, 3])
        >>> model.head.keeps_softmax
        True
    """
    if isinstance(model, Classifier):
        raise ValueError(
            "model has a head already; set model.head = head, which starts afresh, or attach to "
            "the network as it was"
        )
    refuse_wrapped(model)
    refuse_other_tasks(model)
    name, linear = find_layer(model, layer)
    refuse_wrapped(model, name)
    check_replaceable(name, linear)
    refuse_layers_behind(model, name)
    built = _built_from(linear, head, options) if isinstance(head, str) else head
    if options and not isinstance(head, str):
        raise ValueError(f"options {sorted(options)} are for a head given by name")
    if built.in_features != linear.in_features:
        raise ValueError(
            f"head must take the {linear.in_features} features of layer {name!r}; "
            f"it takes {built.in_features}"
        )
    if isinstance(head, str):
        warn_of_losses(model, name, linear)
    if not name:
        return Classifier(nn.Identity().train(model.training), built)
    stand_in = nn.Identity().train(linear.training)
    for alias in [n for n, m in model.named_modules(remove_duplicate=False) if m is linear]:
        parent_name, _, leaf = alias.rpartition(".")
        setattr(model.get_submodule(parent_name), leaf, stand_in)
    classifier = Classifier(model, built)
    classifier._after = LayerOutput(name, linear.in_features, bias=linear.bias is not None)
    return classifier


def _built_from(linear: nn.Linear, name: str, options: dict[str, Any]) -> Head:
    """Build a head in a layer's place, from its weights where the number of classes is the same."""
    own = {"num_classes": linear.out_features, "bias": linear.bias is not None}
    arguments = own | options
    num_classes = arguments.pop("num_classes")
    built = build_head(
        name,
        linear.in_features,
        num_classes,
        device=linear.weight.device,
        dtype=linear.weight.dtype,
        **arguments,
    )
    if num_classes == linear.out_features:
        with torch.no_grad():
            built.classifier.weight.copy_(linear.weight)
            if built.classifier.bias is not None and linear.bias is not None:
                built.classifier.bias.copy_(linear.bias)
            elif built.classifier.bias is not None:  # the layer had none: start from its value, 0
                built.classifier.bias.zero_()
        built._start_as_softmax()
    return built
