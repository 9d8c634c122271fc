#!/usr/bin/env bash
# Every subcommand of the mechbench that is installed, from an empty folder: what a wheel must do.
#
#     pip install mechbench-*.whl && scripts/smoke_wheel.sh
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset PYTHONPATH
export OMP_NUM_THREADS=1

place=$(python -c 'import mechbench; print(mechbench.__file__)')
case $place in "$repository"/*) echo "not a wheel: $place" >&2; exit 1 ;; esac

tiny=(--seqlen 16 --vocab-size 8 --d-model 8 --device cpu)
run() { echo "mechbench $*"; mechbench "$@" >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }; }

run --version
for kind in operators tasks suites; do
  run list "$kind"
done
run show recall --seqlen 16
run run --operator hyena --task recall "${tiny[@]}" --budget 4096 --test-examples 32 --quiet
run watch runs --once
run report runs --out report
run inspect --run runs/* --out inspected
run check --operator attention --seqlen 64 --d-model 16 --out checked
run bench --operator attention --seqlen 64 --d-model 16 --tokens 64 --repeats 1 --device cpu --out bench
run sweep smoke --dry-run
cat >tiny.toml <<'SUITE'
title = "Tiny"
tasks = ["recall"]
operators = ["attention", "hyena"]
settings = { seqlen = 16, vocab_size = 8, d_model = 8, budget_sequences = 6400, n_test = 64 }
SUITE
run sweep tiny.toml --device cpu --out swept --quiet
run compare attention --dry-run
run compare attention --suite tiny.toml --device cpu --out swept --card card
python -c 'from mechbench.leaderboard.shipped import shipped_boards; assert shipped_boards()'
run leaderboard submit swept --suite tiny.toml --to boards/tiny
run leaderboard build boards
for made in runs/*/result.json report/table.md inspected card/card.png boards/tiny/table.md; do
  test -s "$made" || { echo "missing: $made" >&2; exit 1; }
done
