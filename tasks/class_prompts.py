"""Classes as texts: the words for each class, put into the configured templates."""

from collections.abc import Sequence
from pathlib import Path

from configs.schema import RecognitionConfig
from datasets.annotations.class_names import read_class_words
from datasets.annotations.clip_prompts import read_clip_prompts
from datasets.prompts import check_template, fill_prompts
from tasks.folders import root_folder


def templates_of(config: RecognitionConfig) -> tuple[str, ...]:
    """The templates, from the configuration or the file that it names; ValueError for a wrong placeholder."""
    evaluation = config.evaluation
    if evaluation.prompt_file is None:
        templates = evaluation.prompts
    else:
        file, _, section = evaluation.prompt_file.rpartition("#")
        templates = read_clip_prompts(_below(config, file), section).templates
    for template in templates:
        try:
            check_template(template)
        except ValueError as error:
            raise ValueError(f"evaluation.prompts: {error}") from None
    return templates


def prompts_of(config: RecognitionConfig, classes: Sequence[str]) -> list[list[str]]:
    """For each class its prompts, one a template."""
    words: Sequence[str] = classes
    if config.evaluation.class_words is not None:
        words = read_class_words(_below(config, config.evaluation.class_words), classes)
    return fill_prompts(words, templates_of(config))


def _below(config: RecognitionConfig, file: str) -> Path:
    """A file named in the configuration: relative ones lie in `data.root`."""
    return root_folder(config) / file
