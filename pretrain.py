"""Pre-train a model on pairs of videos, or images, and captions.

python pretrain.py --config configs/debug/pretrain_stories.yaml data.root=FOLDER
torchrun --nproc_per_node=8 pretrain.py --config configs/testa/pretrain/testa_f8.yaml data.root=FOLDER
"""

from configs.schema import PretrainConfig
from engine.command_line import main
from tasks.annotations import check_data

if __name__ == "__main__":
    main(__doc__, PretrainConfig, "tasks.pretrain:PretrainTask", check_data)
