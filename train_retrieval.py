"""Fine-tune a model for paragraph-to-video retrieval, or evaluate one.

python train_retrieval.py --config configs/debug/clips.yaml data.root=FOLDER
torchrun --nproc_per_node=8 train_retrieval.py --config configs/testa/retrieval/testa_f32.yaml data.root=FOLDER
python train_retrieval.py --evaluate checkpoint=outputs/clips/checkpoint_best aggregation.reducer=none
"""

from configs.schema import RetrievalConfig
from engine.command_line import main
from tasks.annotations import check_data

if __name__ == "__main__":
    main(__doc__, RetrievalConfig, "tasks.retrieval:RetrievalTask", check_data)
