"""What a folder or repository holds, from the names of its files: weights that can be read, or what it has instead."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from phi3_core.paths import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_ADAPTER = (
    *("adapter_model*.safetensors", "adapter_model*.bin", "adapter.safetensors", "*adapters.safetensors"),
    *("*adapters.npz", "pytorch_lora_weights*.safetensors", "pytorch_lora_weights*.bin"),
)
_ADAPTER_CONFIG = "adapter_config.json"
_SENTENCES = {"modules.json", "config_sentence_transformers.json"}
_GRAPHS = ("*.gguf", "*.onnx", "openvino_*.xml", "openvino_*.bin")
_FORMATS = (
    (("pytorch_model*.bin", "consolidated*.pth"), "pickles of PyTorch, which can run code"),
    (("optimizer.pt", "trainer_state.json"), "the state of a training run"),
    (("zero_to_fp32.py", "*.distcp"), "a training checkpoint in shards of DeepSpeed or FSDP"),
    (("tf_model*.h5", "saved_model.pb"), "weights of TensorFlow"),
    (("flax_model*.msgpack",), "weights of Flax"),
    (("*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle"), "pickles, which can run code"),
    ((INDEX,), "an index alone, without its shards"),
)
_LIKELY_FORMATS = (
    (("*.incomplete", "*.part", "*.partial", "*.crdownload", "*.aria2"), "an unfinished download"),
    (("*.bin",), "what may be pickles, which can run code"),
    (("*.npz", "*.npy"), "arrays of NumPy"),
    (("*.h5", "*.keras"), "weights of Keras"),
    (("*.msgpack",), "weights of Flax"),
    (("*.task", "*.tflite", "*.litertlm"), "a model of LiteRT"),
    (("*.pte",), "a model of ExecuTorch"),
    (("*.nemo",), "a model of NeMo"),
    (("*.llamafile",), "a llamafile"),
)


@frozen(kw_only=True)
class Unusable:
    """What a folder or repository holds instead of a model that can be read."""

    words: str
    """What it is, to be put behind its name."""
    hint: str


def is_adapter(name: str) -> bool:
    """Return whether a file, by its name without a folder, belongs to an adapter such as LoRA."""
    return _matches(name, (*_ADAPTER, _ADAPTER_CONFIG))


def weight_files(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the safetensors files that hold the model.

    As in transformers, ``model.safetensors`` takes precedence over shards, whose index may be that of an earlier save.
    Adapters are no models.
    """
    found = sorted(name for name in names if name.endswith(".safetensors") and not is_adapter(name))
    if SINGLE in found:
        return (SINGLE,)
    return tuple(filter(_SHARD.fullmatch, found)) or tuple(found)


def stored_files(folder: Path) -> tuple[str, ...]:
    """Return the names of the safetensors files that a checkpoint folder is read from. Its index names the shards."""
    names = [entry.name for entry in folder.iterdir() if not entry.is_dir()]
    if SINGLE in names:
        return (SINGLE,)
    index = read_json(folder / INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    named = [name for name in places.values() if isinstance(name, str)] if isinstance(places, dict) else []
    return tuple(sorted(set(named).intersection(names))) or weight_files(names)


def unusable(where: str, names: Iterable[str], *, base: str | None = None, sure: bool = False) -> Unusable | None:
    """Return what the named files are if no backend can load them, or if only a part of them would be used.

    Args:
        where: the folder or repository, for the hint.
        names: the names of its files, with the folders that they are in.
        base: the model that an adapter is for, if known.
        sure: whether to tell only what is certain: a backend may have a format of its own with any suffix.

    Returns:
        None if there are weights in a known form and no adapter, or nothing that is known.
    """
    everywhere = tuple(names)
    names = sorted(name for name in everywhere if "/" not in name)
    weights = weight_files(names)
    adapters = [name for name in names if _matches(name, _ADAPTER)]
    loadable = bool(weights) or any(_matches(name, _GRAPHS) for name in everywhere)
    of_base = f" for {base}" if base else ""
    if adapters or (_ADAPTER_CONFIG in names and not loadable):
        words = (
            f"has an adapter{of_base}, such as LoRA, beside its weights ({adapters[0]}), which would be ignored"
            if loadable
            else f"is an adapter{of_base}, such as LoRA, not a model"
        )
        return Unusable(words=words, hint=f"merge it into its base: {_merge(where)}")
    if loadable:
        return None
    if (folder := _folder_of_adapters(everywhere)) is not None:
        hint = f"merge one into its base: {_merge(f'{where}/{folder}')}"
        return Unusable(words=f"has no model, and in {folder} an adapter{of_base}, such as LoRA", hint=hint)
    if set(names) >= _SENTENCES:
        return Unusable(words="is a model of sentence-transformers, which writes no text", hint="phi3 models list")
    for patterns, words in (*_FORMATS, *(() if sure else _LIKELY_FORMATS)):
        found = next((name for name in names if _matches(name, patterns)), None)
        if found is not None:
            hint = f"convert it: {_convert(where)}" if found.startswith("pytorch_model") else "phi3 models list"
            return Unusable(words=f"has no weights in safetensors, but {words} ({found})", hint=hint)
    return None


def _folder_of_adapters(names: Iterable[str]) -> str | None:
    """Return the first folder with an adapter, if folders have adapters and no models, as those of a training do."""
    below = sorted(name for name in names if "/" in name)
    if any(weight_files([name.rpartition("/")[2]]) for name in below):
        return None
    return next((name.rpartition("/")[0] for name in below if _matches(name.rpartition("/")[2], _ADAPTER)), None)


def lacks_settings(names: Iterable[str]) -> str | None:
    """Return what is said of files with an ONNX graph and without ``genai_config.json``, as exporters write them."""
    names = sorted(name for name in names if "/" not in name)
    graph = next((name for name in names if name.lower().endswith(".onnx")), None)
    if graph is None or "genai_config.json" in names:
        return None
    return f"{graph} has no genai_config.json beside it, which ONNX Runtime GenAI needs"


def nested(path: Path) -> tuple[Path, ...]:
    """Return the folders directly in ``path`` that hold models, for a folder that is one level too high."""
    try:
        folders = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
        names = {folder: [file.name for file in folder.iterdir()] for folder in folders}
    except OSError:
        return ()
    return tuple(
        folder
        for folder in folders
        if weight_files(names[folder]) or any(_matches(name, _GRAPHS) for name in names[folder])
    )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns)


def _merge(where: str) -> str:
    load = f"M.from_pretrained('{where}').merge_and_unload().save_pretrained('{_output(where, 'merged')}')"
    return f'python -c "from peft import AutoPeftModelForCausalLM as M; {load}"'


def _convert(where: str) -> str:
    load = f"M.from_pretrained('{where}', torch_dtype='auto').save_pretrained('{_output(where, 'safetensors')}')"
    return f'python -c "from transformers import AutoModelForCausalLM as M; {load}"'


def _output(where: str, suffix: str) -> str:
    return f"{where.rstrip('/').rpartition('/')[2]}-{suffix}"
