#!/usr/bin/env bash
# Run an entry script on several machines: the same command on each, which find each other at MASTER_ADDR.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: NNODES=N MASTER_ADDR=HOST scripts/launch/nodes.sh SCRIPT.py [ARGUMENTS ...]      on each of the N machines

  NNODES=4 MASTER_ADDR=node0 scripts/launch/nodes.sh pretrain.py --config configs/testa/pretrain/testa_f8.yaml data.root=FOLDER

Everything after SCRIPT.py goes to it unchanged. The data and the output folder have to be the same on every machine.
From the environment:
  NNODES       number of machines
  MASTER_ADDR  one of them, by a name that the others can reach
  MASTER_PORT  a free port there; by default 29500
  RUN_ID       tells runs apart that meet at one address and port; by default testa
  NPROC        processes a machine; by default one a GPU, and to be given where there is none
  PYTHON       the interpreter; by default python
  DRY_RUN      1 prints the command and does not run it
USAGE
}

case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") usage >&2; exit 2 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
for name in NNODES MASTER_ADDR; do
  if [[ -z "${!name:-}" ]]; then
    echo "nodes.sh: $name is not set; scripts/launch/nodes.sh --help says what it is" >&2
    exit 2
  fi
done
python="${PYTHON:-python}"
if [[ ! -f "$1" ]]; then
  echo "nodes.sh: $1: no such script in $PWD" >&2
  exit 2
fi
processes="${NPROC:-$("$python" -c 'import torch; print(torch.cuda.device_count())')}"
if [[ "$processes" == 0 ]]; then
  echo "nodes.sh: no GPU here; set NPROC to the number of CPU processes" >&2
  exit 2
fi

# Ranks are given out where the machines meet, so that none needs a number of its own.
command=(
  "$python" -m torch.distributed.run --nnodes="$NNODES" --nproc_per_node="$processes" --rdzv_backend=c10d
  --rdzv_endpoint="$MASTER_ADDR:${MASTER_PORT:-29500}" --rdzv_id="${RUN_ID:-testa}" "$@"
)
printf '%q ' "${command[@]}"
echo
if [[ "${DRY_RUN:-0}" == 1 ]]; then
  exit 0
fi
# One process a GPU shares the cores with the others and with its data workers.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "${command[@]}"
