"""Fine-tune a model to choose which of a video's options describes it, or evaluate one.

python train_choice.py --config configs/umt/choice/msrvtt_mc_b16.yaml data.root=FOLDER
torchrun --nproc_per_node=8 train_choice.py --config configs/umt/choice/msrvtt_mc_l16.yaml
python train_choice.py --evaluate checkpoint=CHECKPOINT --config configs/umt/choice/msrvtt_mc_b16.yaml
"""

from configs.schema import ChoiceConfig
from engine.command_line import main
from tasks.annotations import check_data

if __name__ == "__main__":
    main(__doc__, ChoiceConfig, "tasks.choice:ChoiceTask", check_data)
