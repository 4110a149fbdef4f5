"""Adam inside a module: torch's own, and carried by whatever carries modules."""

import copy
import pickle

import pytest
import torch
import torch.distributed.checkpoint as checkpoint
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from lastlayer.heads import Softmax
from lastlayer.incremental import MetaOldWeight
from lastlayer.longtail import MetaSampler
from lastlayer.longtail.meta_sampler import OwnAdam

FEATURES, META = torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(16) % 3


def sampler_step(sampler):
    head = Softmax(4, 3, bias=False).to(sampler.rate_logits.dtype)
    with torch.no_grad():
        head.classifier.weight.fill_(0.1).mul_(torch.arange(3.0)[:, None])
    weights = sampler.weights(TARGET)
    rows = (FEATURES, META)
    batch, meta = (part.to(sampler.rate_logits.dtype) for part in rows)
    sampler.meta_step(head, batch, TARGET, weights, meta, TARGET, lr=5.0)
    return sampler.rates()


def weight_step(old_weight):
    old_weight.meta_step(META[:3], None, FEATURES, TARGET, [2, 2, 50], 2, META, TARGET, lr=0.5)
    return torch.tensor(old_weight.alpha)


KINDS = {
    "sampler": (lambda: MetaSampler([50, 30, 20], lr=0.1), sampler_step),
    "old weight": (lambda: MetaOldWeight(initial=0.5, lr=0.1), weight_step),
}


def by_assign(module, fresh, tmp_path):
    fresh.load_state_dict(copy.deepcopy(module.state_dict()), assign=True)
    return fresh


def by_live_state(module, fresh, tmp_path):
    fresh.load_state_dict(module.state_dict())
    return fresh


def by_safetensors(module, fresh, tmp_path):
    save_file(module.state_dict(), tmp_path / "state.safetensors")
    fresh.load_state_dict(load_file(tmp_path / "state.safetensors"))
    return fresh


def by_model_file(module, fresh, tmp_path):
    save_model(nn.ModuleDict({"held": module}), tmp_path / "model.safetensors")
    load_model(nn.ModuleDict({"held": fresh}), tmp_path / "model.safetensors")
    return fresh


def by_distributed_checkpoint(module, fresh, tmp_path):
    checkpoint.save({"held": module.state_dict()}, checkpoint_id=tmp_path / "parts", no_dist=True)
    state = {"held": fresh.state_dict()}
    checkpoint.load(state, checkpoint_id=tmp_path / "parts", no_dist=True)
    fresh.load_state_dict(state["held"])
    return fresh


def by_torch_file(module, fresh, tmp_path):
    torch.save(module.state_dict(), tmp_path / "state.pt")
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True, mmap=True))
    return fresh


def by_replaced_parameters(module, fresh, tmp_path):
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        return copy.deepcopy(module).double().float()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


WAYS = [
    by_assign,
    by_live_state,
    by_safetensors,
    by_model_file,
    by_distributed_checkpoint,
    by_torch_file,
    by_replaced_parameters,
    lambda module, fresh, tmp_path: copy.deepcopy(module),
    lambda module, fresh, tmp_path: pickle.loads(pickle.dumps(module)),
]
NAMES = [way.__name__ for way in WAYS[:-2]] + ["by deepcopy", "by pickle"]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
# torch 2.10 warns of what its own distributed checkpoints use.
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
@pytest.mark.parametrize("way", WAYS, ids=NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_however_it_is_carried_it_goes_on_as_the_original_and_shares_nothing(kind, way, tmp_path):
    make, step = KINDS[kind]
    original = make()
    step(original), step(original)
    before = {name: value.clone() for name, value in original.state_dict().items()}
    carried = way(original, make(), tmp_path)
    moved = step(carried)
    assert all(value.equal(before[name]) for name, value in original.state_dict().items())
    forgetful = make()
    fresh = {name: value for name, value in make().state_dict().items() if "adam." in name}
    forgetful.load_state_dict(before | fresh)
    assert not moved.equal(step(forgetful))  # so the moments matter
    assert moved.equal(step(original))


def test_a_state_holds_tensors_alone():
    for make, step in KINDS.values():
        module = make()
        step(module)
        assert all(isinstance(value, torch.Tensor) for value in module.state_dict().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_steps_are_torchs_adam_to_the_bit(dtype):
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(20, 5, generator=generator, dtype=dtype)
    ours = nn.Parameter(torch.ones(5, dtype=dtype))
    theirs = nn.Parameter(torch.ones(5, dtype=dtype))
    adam = OwnAdam(ours, lr=0.03, betas=(0.8, 0.95))
    reference = torch.optim.Adam([theirs], lr=0.03, betas=(0.8, 0.95))
    for gradient in gradients:
        adam.step(ours, gradient)
        theirs.grad = gradient.clone()
        reference.step()
        assert ours.equal(theirs)
        assert ours.grad is None
    adam.lr = reference.param_groups[0]["lr"] = 1.0
    adam.step(ours, gradients[0])
    theirs.grad = gradients[0].clone()
    reference.step()
    assert ours.equal(theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_small_gradients_move_it_as_in_single(dtype):
    """A gradient of 1e-5 has no square in half precision: Adam would divide by 0."""
    moved = {}
    for kind in (torch.float32, dtype):
        parameter = nn.Parameter(torch.zeros(3, dtype=kind))
        holder = nn.Module()
        holder.adam = OwnAdam(parameter, lr=0.125, betas=(0.9, 0.99))
        holder.to(kind)
        gradient = torch.tensor([1e-5, -1e-5, 1.0], dtype=kind)
        for _ in range(3):
            holder.adam.step(parameter, gradient)
        moved[kind] = parameter.detach().float()
    torch.testing.assert_close(moved[dtype], moved[torch.float32], atol=1e-2, rtol=1e-2)


def test_bad_arguments_are_named():
    for options, message in (
        ({"lr": 0.0}, "lr must be"),
        ({"betas": (0.9, 1.0)}, r"betas must lie in \[0, 1\)"),
    ):
        for make in (lambda **options: MetaSampler([5, 3], **options), MetaOldWeight):
            with pytest.raises(ValueError, match=message):
                make(**options)
