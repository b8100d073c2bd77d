"""Convert a published checkpoint of any system into a checkpoint folder of this project, or such a folder into a file.

    python -m scripts.convert_checkpoint testa_model_base_didemo_f32_f1p12.pth checkpoints/didemo_f32
    python -m scripts.convert_checkpoint TVTSv2_ViT_B_16.pth checkpoints/tvts_b16
    python -m scripts.convert_checkpoint outputs/didemo_f32/checkpoint_best didemo_f32.pth

The folder has weights, config.yaml and tokenizer, so `--evaluate checkpoint=FOLDER` and training from it need nothing
else. Task and sizes are read from the names and shapes; --config says what those do not tell (aggregation, heads that
are not 64 wide) and has to fit them. TESTA's and BLIP's, UMT's, TVTSv2's and STOA-VLP's files are known by their names;
CLIP's become a TVTSv2 whose attention over time has no effect yet. BLIP's files for images stay as they are, with
`attention: space`; a run whose configuration says `divided` makes a video encoder of them on loading. The file has the
names of the system's own releases. Weights, dtypes, twins and queues are kept to the bit, except CLIP's halves, which
become float32; optimizer states are not taken.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from configs.load import dump, from_dict, load_any
from configs.schema import CONFIG_CLASSES, TASKS, TaskConfig
from engine.checkpoint_folder import (
    CONFIG,
    PICKLED,
    STATE,
    WEIGHTS,
    is_pickled,
    read_weights,
    replacing_file,
    replacing_folder,
    save_weights,
    write_json,
)
from engine.hub import local_path, tokenizer_folder
from engine.logging import start_logging
from models.checkpoints import native
from models.checkpoints.load import fit, formats_for
from models.checkpoints.native import TWIN
from models.checkpoints.stored import grouped
from models.parts.momentum import MomentumTwin
from models.systems import SYSTEMS, piece
from tasks.build import TOKENIZER, build_model, read_any_weights

Tensors = dict[str, torch.Tensor]


def conversion_of(tensors: Tensors, source: str) -> Any:
    """The piece `convert` of the system whose published file this is; ValueError if it is of none."""
    conversions = [piece(name, "convert") for name, system in SYSTEMS.items() if system.convert is not None]
    for conversion in conversions:
        if conversion.matches(tensors):
            return conversion
    known = ", or ".join(conversion.known_files for conversion in conversions)
    raise ValueError(f"{source}: is no checkpoint of {known}")


def infer_config(tensors: Tensors, conversion: Any) -> TaskConfig:
    """The configuration of a reference file's model, with defaults for what a file of weights does not say."""
    settings = {
        "data": {"root": "data"},
        "optim": {"lr": 1e-5},
        "train": {"batch_size": 32, "max_epochs": 10},
        **conversion.settings_of(tensors),
    }
    return from_dict(TASKS[settings["task"]].config, settings, "the file's sizes")


def convert_to_folder(source: str, target: Path, config_file: Path | None, tokenizer_source: str | None) -> list[str]:
    """Write a reference file as a checkpoint folder; what was done, in lines."""
    path = local_path(source)
    tensors = read_any_weights(path)
    if native.matches(tensors):
        raise ValueError(f"{source}: is a checkpoint of this project; name a file OUT{PICKLED[0]} to convert it to")
    conversion = conversion_of(tensors, source)

    try:
        converted = conversion.to_native(tensors)
        config = infer_config(tensors, conversion) if config_file is None else load_any(CONFIG_CLASSES, config_file, [])
    except (KeyError, IndexError) as error:
        raise ValueError(f"{source}: lacks what its sizes are read from: {error}") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error

    kind = piece(config.model.name, "tokenizer")
    find = getattr(kind, "vocabulary_path", partial(tokenizer_folder, setting="--tokenizer", otherwise=""))
    tokenizer = kind.load_tokenizer(str(find(tokenizer_source or config.model.text.tokenizer)))
    if len(tokenizer) > config.model.text.vocab_size:
        raise ValueError(f"{source}: has {config.model.text.vocab_size} words, and the tokenizer {len(tokenizer)}")

    with torch.device("meta"):
        model = build_model(config, tokenizer)
        twin = MomentumTwin(model, momentum=0.0) if any(name.startswith(TWIN) for name in converted) else None

    # Refuses a configuration that does not fit.
    formats = formats_for(piece(config.model.name, "weights"), config.video)
    _, report = fit(model, converted, source, formats=formats, twin=twin)
    with replacing_folder(target) as folder:
        save_weights(converted, folder / WEIGHTS)
        dump(config, folder / CONFIG)
        tokenizer.save(folder / TOKENIZER)
        write_json(folder / STATE, {"task": config.task, "converted_from": source})

    video = config.video
    summary = (
        f"{config.task}, {video.num_frames} frames of {video.image_size} pixels, {conversion.described(config.model)}"
    )
    dropped = conversion.left_out(tensors)

    return [
        f"{target}: {summary}, {len(converted)} tensors",
        *(f"not kept: {', '.join(grouped(names))}: {reason}" for reason, names in dropped.items()),
        *(f"when it is loaded: {note}" for note in report.notes),
    ]


def convert_to_file(source: str, target: Path, config_file: Path | None) -> list[str]:
    """Write a checkpoint folder as a file with the reference's names; what was done, in lines."""
    path = local_path(source)
    tensors = read_weights(path)
    if not native.matches(tensors):
        raise ValueError(f"{source}: is no checkpoint of this project; name a folder to convert it to")

    config_path = config_file or (path if path.is_dir() else path.parent) / CONFIG
    config = load_any(CONFIG_CLASSES, config_path, [])
    if SYSTEMS[config.model.name].convert is None:
        raise ValueError(f"{source}: is of {config.model.name}, whose files this command does not write")

    conversion = piece(config.model.name, "convert")
    converted = conversion.to_reference(tensors, config.task)
    key = conversion.saved_under
    with replacing_file(target) as temporary:
        torch.save(converted if key is None else {key: converted}, temporary)
    place = "at the top" if key is None else f"under {key!r}"
    return [f"{target}: {config.task}, {len(converted)} tensors {place}"]


def main() -> int:
    """Convert as the command line says; 2 and one line if it cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN", help="file, checkpoint folder, or hf://OWNER/REPO/FILE")
    parser.add_argument("target", metavar="OUT", type=Path, help=f"new folder, or new file *{PICKLED[0]}")
    parser.add_argument("--config", type=Path, help="YAML file of the model that IN holds")
    parser.add_argument("--tokenizer", help="folder, file or hub name; by default the system's own, or --config's")
    arguments = parser.parse_args()
    start_logging()

    try:
        if arguments.target.exists():
            raise ValueError(f"{arguments.target}: exists; choose another name")
        if is_pickled(arguments.target):
            if arguments.tokenizer is not None:
                raise ValueError("--tokenizer: has no effect on the way to a file, which holds none")
            lines = convert_to_file(arguments.source, arguments.target, arguments.config)
        else:
            lines = convert_to_folder(arguments.source, arguments.target, arguments.config, arguments.tokenizer)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
