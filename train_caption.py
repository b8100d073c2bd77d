"""Fine-tune a model to write captions of videos, or evaluate one.

python train_caption.py --config configs/debug/clips_caption.yaml data.root=FOLDER
torchrun --nproc_per_node=8 train_caption.py --config configs/testa/caption/testa_caption_f32.yaml data.root=FOLDER
python train_caption.py --evaluate checkpoint=outputs/clips_caption/checkpoint_best evaluation.method=nucleus
"""

from configs.schema import CaptionConfig
from engine.command_line import main
from tasks.annotations import check_data

if __name__ == "__main__":
    main(__doc__, CaptionConfig, "tasks.caption:CaptionTask", check_data)
