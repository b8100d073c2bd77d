"""Recognise actions: zero-shot by prompts, a linear probe, or fine-tuning with a head.

python train_recognition.py --evaluate --config configs/tvts/recognition/hmdb51_b16.yaml data.root=FOLDER
python train_recognition.py --config configs/debug/actions.yaml data.root=FOLDER
python train_recognition.py --evaluate checkpoint=outputs/actions/checkpoint_best data.root=OTHER data.test_split=test
"""

from configs.schema import RecognitionConfig
from engine.command_line import main
from tasks.annotations import check_data

if __name__ == "__main__":
    main(__doc__, RecognitionConfig, "tasks.recognition:RecognitionTask", check_data)
