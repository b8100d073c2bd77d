"""Fine-tune a model for question answering on videos, or evaluate one.

python train_vqa.py --config configs/debug/clips_qa.yaml data.root=FOLDER
torchrun --nproc_per_node=8 train_vqa.py --config configs/testa/vqa/testa_qa_f32.yaml data.root=FOLDER
python train_vqa.py --evaluate checkpoint=outputs/clips_qa/checkpoint_best evaluation.inference=generate
"""

from configs.schema import VqaConfig
from engine.command_line import main
from tasks.annotations import check_data

if __name__ == "__main__":
    main(__doc__, VqaConfig, "tasks.vqa:VqaTask", check_data)
