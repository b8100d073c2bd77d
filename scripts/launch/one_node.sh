#!/usr/bin/env bash
# Run an entry script on all GPUs of this machine, one process each.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: scripts/launch/one_node.sh SCRIPT.py [ARGUMENTS ...]

  scripts/launch/one_node.sh train_retrieval.py --config configs/testa/retrieval/queryd_f32.yaml data.root=FOLDER

Everything after SCRIPT.py goes to it unchanged. From the environment:
  NPROC    processes; by default one a GPU, and to be given where there is none (NPROC=2 trains on two CPU processes)
  PYTHON   the interpreter; by default python
  DRY_RUN  1 prints the command and does not run it
USAGE
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") usage >&2; exit 2 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python="${PYTHON:-python}"
if [[ ! -f "$1" ]]; then
  echo "one_node.sh: $1: no such script in $PWD" >&2
  exit 2
fi
processes="${NPROC:-$("$python" -c 'import torch; print(torch.cuda.device_count())')}"
if [[ "$processes" == 0 ]]; then
  echo "one_node.sh: no GPU here; set NPROC to the number of CPU processes" >&2
  exit 2
fi

# As torchrun --standalone, but Ctrl-C ends in one line and with the status of the processes.
command=("$python" -m engine.launch --nproc_per_node="$processes" "$@")
printf '%q ' "${command[@]}"
echo
if [[ "${DRY_RUN:-0}" == 1 ]]; then
  exit 0
fi
# One process a GPU shares the cores with the others and with its data workers.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "${command[@]}"
