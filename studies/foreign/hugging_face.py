"""Networks of transformers from tiny configurations: texts, images, sound."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

from foreign.networks import NUM_CLASSES, Inputs, Network, images, tokens

_LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2}
_BERT = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, **_LAYERS}
_ENCODER = {"hidden_size": 32, "intermediate_size": 64, **_LAYERS}
_ALL = {
    "num_labels": NUM_CLASSES,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.1,  # of 0.02 tiny networks hardly look at their input
}


def _model(family: str, task: str, options: dict[str, Any]) -> nn.Module:
    config = getattr(transformers, f"{family}Config")(**(_ALL | options))
    return getattr(transformers, f"{family}For{task}Classification")(config)


def _waves(count: int) -> Inputs:
    noise = torch.Generator().manual_seed(count)
    return Inputs((torch.randn(count, 1200, generator=noise),))


def _spectrograms(count: int) -> Inputs:
    noise = torch.Generator().manual_seed(count)
    return Inputs((torch.randn(count, 32, 16, generator=noise),))


def transformers_networks() -> list[Network]:
    def text(family: str, layer: str, where: str, options: dict[str, Any], **more: Any) -> Network:
        axes = more.pop("axes", (0, -1))
        return Network(
            f"transformers {family}",
            lambda: _model(family, "Sequence", options),
            tokens,
            layer,
            where,
            axes=axes,
            maps=False,
        )

    def image(
        family: str, layer: str, where: str, size: int, options: dict[str, Any], **more: Any
    ) -> Network:
        make = lambda: _model(family, "Image", options | {"image_size": size})  # noqa: E731
        return Network(f"transformers {family}", make, images(size), layer, where, **more)

    rows: dict[str, Any] = {"axes": (0, -1)}
    seq2seq = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 32}
    return [
        text("Bert", "classifier", "bert.encoder.layer.*", _BERT),
        text(
            "DistilBert",
            "classifier",
            "distilbert.transformer.layer.*",
            {"vocab_size": 64, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2},
        ),
        text("Roberta", "classifier.out_proj", "roberta.encoder.layer.*", _BERT),
        text("Electra", "classifier.out_proj", "electra.encoder.layer.*", _BERT),
        text(
            "Albert",
            "classifier",
            "albert.encoder.albert_layer_groups.*.albert_layers.*",
            _BERT | {"embedding_size": 16},
        ),
        text("DebertaV2", "classifier", "deberta.encoder.layer.*", _BERT),
        text(
            "MobileBert",
            "classifier",
            "mobilebert.encoder.layer.*",
            _BERT | {"embedding_size": 16, "intra_bottleneck_size": 16},
        ),
        text(
            "Bart",
            "classification_head.out_proj",
            "model.encoder.layers.*",
            seq2seq | heads | widths,
        ),
        text(
            "T5",
            "classification_head.out_proj",
            "transformer.encoder.block.*",
            {
                "vocab_size": 64,
                "d_model": 32,
                "d_kv": 16,
                "d_ff": 64,
                "num_layers": 2,
                "num_heads": 2,
                "decoder_start_token_id": 0,
            },
        ),
        text(
            "GPT2",
            "score",
            "transformer.h.*",
            {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32},
        ),
        text("Llama", "score", "model.layers.*", _BERT),
        text(
            "XLNet",
            "logits_proj",
            "transformer.layer.*",
            {"vocab_size": 64, "d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
            axes=(1, -1),
        ),
        image("ViT", "classifier", "vit.layers.*", 32, _ENCODER | {"patch_size": 8}, **rows),
        image("Beit", "classifier", "beit.layers.*", 32, _ENCODER | {"patch_size": 8}, **rows),
        image(
            "Swin",
            "classifier",
            "swin.encoder.layers.*.blocks.*",
            32,
            {"patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]}
            | {"window_size": 4},
            **rows,
        ),
        image(
            "ResNet",
            "classifier.1",
            "resnet.encoder.stages.*.layers.*",
            64,
            {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 2]},
        ),
        image(
            "ConvNextV2",
            "classifier",
            "convnextv2.encoder.stages.*.layers.*",
            64,
            {"hidden_sizes": [16, 32], "depths": [2, 2], "num_stages": 2},
        ),
        image(
            "MobileViT",
            "classifier",
            "mobilevit.encoder.layer.[01].*.*",
            64,
            {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48]}
            | {"num_attention_heads": 2},
        ),
        Network(
            "transformers Wav2Vec2",
            lambda: _model(
                "Wav2Vec2",
                "Sequence",
                _BERT
                | {"conv_dim": (16, 16, 16), "conv_kernel": (10, 3, 3)}
                | {"conv_stride": (5, 2, 2), "num_conv_pos_embeddings": 16, "layerdrop": 0.0}
                | {"num_conv_pos_embedding_groups": 2, "classifier_proj_size": 16},
            ),
            _waves,
            "classifier",
            "wav2vec2.encoder.layers.*",
            axes=(0, -1),
            maps=False,
        ),
        Network(
            "transformers AST",
            lambda: _model(
                "AST",
                "Audio",
                _ENCODER
                | {"patch_size": 8, "frequency_stride": 4, "time_stride": 4}
                | {"max_length": 32, "num_mel_bins": 16},
            ),
            _spectrograms,
            "classifier.dense",
            "audio_spectrogram_transformer.layers.*",
            axes=(0, -1),
            maps=False,
        ),
    ]
