#!/usr/bin/env bash
# The runs behind leaderboards/first-release, on one GPU with 16 CPU cores:
#     bash scripts/first_release.sh OUT
# Runs share the GPU, so their seconds are no timings; leaderboards/first-release/README.md has those.
set -u
out=$1
export OMP_NUM_THREADS=1
run() { timeout 420 python3 -m mechbench run --quiet --vocab-size 30 --out "$out" "$@" >>"$out.log" 2>&1 || echo "failed: $*"; }
export -f run
export out
for seed in 0 1 2; do
  for operator in hyena attention; do
    for task in recall induction; do
      echo "--operator $operator --task $task --seqlen 512 --seed $seed"
    done
    for seqlen in 128 2048 16384 131072; do
      echo "--operator $operator --task recall --seqlen $seqlen --seed $seed"
    done
  done
done | sort -t' ' -k6,6nr | xargs -P 14 -I{} bash -c 'run {}'
