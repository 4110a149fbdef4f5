"""Heads on networks of torchvision, timm and transformers as they are, built without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lastlayer.heads import Classifier, attach, build_head

TEXT = torch.randint(5, 60, (2, 7), generator=torch.Generator().manual_seed(0))
TEXT[:, -1] = 2  # the end of sequence, which BART and T5 look for
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

SMALL = {"vocab_size": 64, "num_labels": 5, "pad_token_id": 0}
BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT |= {"intermediate_size": 16, "max_position_embeddings": 16}
BART = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
T5 = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 16, "eos_token_id": 2}
TEXT_MODELS = {
    "Bert": (BERT, "classifier"),
    "Roberta": (BERT | {"pad_token_id": 1}, "classifier.out_proj"),
    "Electra": (BERT | {"embedding_size": 16}, "classifier.out_proj"),
    "GPT2": ({"n_embd": 16, "n_layer": 1, "n_head": 2}, "score"),
    "Bart": (BART, "classification_head.out_proj"),
    "T5": (T5 | {"decoder_start_token_id": 0}, "classification_head.out_proj"),
    "XLNet": ({"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16}, "logits_proj"),
}
VISION = {"resnet18": "fc", "alexnet": "classifier.6", "mobilenet_v3_small": "classifier.3"}
VISION |= {"convnext_tiny": "classifier.2", "vit_b_32": "heads.head"}
TIMM = {"resnet18": "fc", "vit_tiny_patch16_224": "head", "convnext_atto": "head.fc"}
TIMM |= {"mobilenetv3_small_050": "classifier"}  # a subclass of nn.Linear
DISTILLED = ["deit_tiny_distilled_patch16_224", "efficientformer_l1", "repvit_m0_9"]


def text_model(name: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SMALL | TEXT_MODELS[name][0])
    return getattr(transformers, f"{name}ForSequenceClassification")(config).eval()


def predicts_as_before(network: nn.Module, run: Callable[[nn.Module], Any], layer: str) -> None:
    output = run(network)
    before = (output if isinstance(output, Tensor) else output.logits).log_softmax(-1)
    model = attach(network, "dropmax").eval()
    assert isinstance(network.get_submodule(layer), nn.Identity)
    torch.testing.assert_close(run(model), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_text_models_of_transformers_predict_as_before(name: str) -> None:
    mask = torch.ones_like(TEXT)
    predicts_as_before(
        text_model(name), lambda m: m(input_ids=TEXT, attention_mask=mask), TEXT_MODELS[name][1]
    )


@pytest.mark.parametrize("name", VISION)
def test_networks_of_torchvision_predict_as_before(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    images = torch.randn(1, 3, 224, 224) if name == "vit_b_32" else IMAGES
    network = models.get_model(name, weights=None, num_classes=5).eval()
    predicts_as_before(network, lambda m: m(images), VISION[name])


@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm_predict_as_before(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    images = torch.randn(1, 3, 224, 224) if "vit" in name else IMAGES
    predicts_as_before(
        timm.create_model(name, num_classes=5).eval(), lambda m: m(images), TIMM[name]
    )


@pytest.mark.parametrize("name", DISTILLED)
def test_distilled_networks_of_timm_are_refused_and_the_advice_works(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5)
    with pytest.raises(ValueError, match=r"2 last layers .*model\.reset_classifier\(0\)"):
        attach(network, "softmax")
    network.reset_classifier(0)
    with pytest.raises(ValueError, match=r"build lastlayer\.Classifier\(network, head\)"):
        attach(network, "softmax")
    model = Classifier(network, build_head("softmax", network.num_features, 5)).eval()
    assert model(torch.randn(1, 3, 224, 224)).shape == (1, 5)


@pytest.mark.parametrize(("name", "size"), [("inception_v3", 299), ("googlenet", 64)])
def test_auxiliary_logits_of_torchvision_are_refused_and_the_advice_works(
    name: str, size: int
) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    images, target = torch.randn(2, 3, size, size), torch.tensor([0, 1])
    options = {"weights": None, "num_classes": 5, "init_weights": False}
    with pytest.raises(TypeError, match="aux_logits=False"):
        attach(models.get_model(name, **options), "softmax")(images, target=target)
    model = attach(models.get_model(name, aux_logits=False, **options), "softmax")
    model(images, target=target).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_teacher_of_transformers_with_two_classifiers_is_refused() -> None:
    transformers = pytest.importorskip("transformers")
    options = BERT | {"image_size": 8, "patch_size": 4, "num_labels": 5}
    options.pop("max_position_embeddings")
    network = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**options))
    with pytest.raises(ValueError, match="which one is last cannot be told"):
        attach(network, "softmax")
    model = attach(network, "softmax", layer="cls_classifier").eval()
    with pytest.raises(ValueError, match="fails behind layer 'cls_classifier'"):
        model(pixel_values=IMAGES[..., :8, :8])


def test_tuples_of_transformers_are_refused_with_what_to_do() -> None:
    model = attach(text_model("Bert"), "softmax").eval()
    with pytest.raises(TypeError, match="leave return_dict at True"):
        model(input_ids=TEXT, return_dict=False)


def test_the_trainer_of_transformers_trains_evaluates_and_predicts(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Texts(torch.utils.data.Dataset):  # which third of the vocabulary the words are from
        def __len__(self) -> int:
            return 90

        def __getitem__(self, index: int) -> dict[str, Any]:
            label, draw = index % 3, torch.Generator().manual_seed(index)
            words = torch.randint(4 + 20 * label, 24 + 20 * label, (6,), generator=draw)
            return {"input_ids": words, "attention_mask": torch.ones(6).long(), "labels": label}

    def accuracy(predicted: Any) -> dict[str, float]:
        return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}

    arguments = transformers.TrainingArguments(
        str(tmp_path),
        num_train_epochs=8,
        learning_rate=5e-3,
        remove_unused_columns=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    model = attach(text_model("Bert"), "dropmax")
    trainer = transformers.Trainer(
        model, arguments, train_dataset=Texts(), eval_dataset=Texts(), compute_metrics=accuracy
    )
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] > 0.9
    assert trainer.predict(Texts()).predictions.shape == (90, 5)
