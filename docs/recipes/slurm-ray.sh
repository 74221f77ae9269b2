#!/usr/bin/env bash
# One suite on several nodes of Slurm:  SUITE=llm_lowbit SHARED=/shared/me sbatch slurm-ray.sh
#
# A cluster of Ray is started inside of the job, and ends with it. Records, weights and checkpoints of trainings go to
# one folder that all nodes see; a job that is put back into the queue goes on from there, and so does a new one.
#SBATCH --job-name=qbench
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120

set -euo pipefail
: "${SUITE:?the name of a suite, or the path of its file}" "${SHARED:?a folder that all nodes see}"

name=$(basename "$SUITE" .yaml)
runs="$SHARED/qbench/$name"
export RAY_AUTH_MODE=token # nobody else's processes get in; the token is in the home folder, which all nodes see
[ -e ~/.ray/auth_token ] || ray get-auth-token --generate > /dev/null
export QBENCH_CACHE="${QBENCH_CACHE:-$SHARED/qbench/cache}" # fetched once; no node has to be sent its files

# The first node of the job is where this script runs.
head=${SLURMD_NODENAME:-$(hostname -s)}
ip=$(hostname --ip-address | tr ' ' '\n' | grep -E '^[0-9.]+$' | grep --invert-match --max-count=1 '^127\.')
address=$ip:$((20000 + SLURM_JOB_ID % 20000))
cpus=${SLURM_CPUS_PER_TASK:-1}
gpus=${SLURM_GPUS_ON_NODE:-0}
step=(srun --overlap --ntasks-per-node=1 --cpus-per-task="$cpus")

"${step[@]}" --nodes=1 --nodelist="$head" \
  ray start --head --block --node-ip-address="$ip" --port="${address##*:}" --num-cpus="$cpus" \
  --num-gpus="$gpus" --temp-dir="/tmp/ray-$SLURM_JOB_ID" --include-dashboard=false --disable-usage-stats &

# Shortly before its time is over Slurm sends the signal that is asked for above: what was started last, the run, ends as
# with Ctrl-C and keeps what it has, and the job waits for its next turn.
put_back() {
  kill -TERM $! 2>/dev/null || true
  wait $! || true
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap put_back TERM

alive() {
  python - "$address" <<'PYTHON' 2>/dev/null || echo 0
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()))
PYTHON
}

# Wait until so many nodes are there; after ten minutes the job fails.
wait_for() {
  for _ in $(seq 120); do
    if [ "$(alive)" -ge "$1" ]; then return; fi
    sleep 5
  done
  echo "of the nodes of the cluster at $address there are $(alive), not $1" >&2
  exit 2
}

wait_for 1
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  "${step[@]}" --nodes="$((SLURM_JOB_NUM_NODES - 1))" --exclude="$head" \
    ray start --block --address="$address" --num-cpus="$cpus" --num-gpus="$gpus" --disable-usage-stats &
fi
wait_for "$SLURM_JOB_NUM_NODES"

qbench run --suite "$SUITE" --executor ray --address "$address" --out "$runs" --spool "$runs" --timeout 4h &
code=0
wait $! || code=$?
exit "$code" # 1 where a cell failed, or something changed from the baseline
