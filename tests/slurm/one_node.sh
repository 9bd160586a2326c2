#!/bin/bash
# The smoke study through a real Slurm of one node, its head killed midway and started again.
#
#   PYTHON=.venv/bin/python tests/slurm/one_node.sh
#
# Run as root on a machine without a Slurm of its own, with the Debian packages slurm-wlm and munge
# (apt-get install slurm-wlm munge) and the extra "slurm" (pip install -c constraints.txt -e
# '.[slurm]'). It installs nothing: munged, slurmctld and slurmd run in a temporary folder, with a
# key, socket and ports of their own, and end with the script. KEEP=1 keeps the folder.
#
# It fails unless the second head waits for the job that still ran, submits again only what had not
# started, and every notebook of the study was executed once, all in all.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
began=$SECONDS

say() { printf '[%4d s] %s\n' $((SECONDS - began)) "$*"; }
fail() {
  say "FAILED: $*"
  exit 1
}

for command in munged slurmctld slurmd sbatch squeue sinfo; do
  command -v "$command" > /dev/null || fail "no $command; expected apt-get install slurm-wlm munge"
done
[ "$(id -u)" = 0 ] || fail "not root; slurmd starts jobs as root"
[ ! -e /etc/slurm/slurm.conf ] || fail "/etc/slurm/slurm.conf exists; this machine has a Slurm"
"$python" -c 'import snakemake_executor_plugin_slurm' || fail "expected pip install -e '.[slurm]'"

folder=$(mktemp -d)
daemons=()
head=

clean() {
  set +e
  # shellcheck disable=SC2046  # the head's child is a number or nothing
  [ -z "$head" ] || kill -9 "$head" $(pgrep -P "$head") 2> /dev/null
  scancel --partition=debug 2> /dev/null
  for _ in {1..40}; do if [ -n "$(squeue --noheader 2> /dev/null)" ]; then sleep 1; else break; fi; done
  [ ${#daemons[@]} = 0 ] || kill "${daemons[@]}" 2> /dev/null
  wait 2> /dev/null
  [ "$(readlink /etc/slurm/slurm.conf)" = "$folder/slurm.conf" ] && rm /etc/slurm/slurm.conf
  if [ -n "${KEEP:-}" ]; then say "kept: $folder"; else rm -rf "$folder"; fi
}
trap clean EXIT

# -- Slurm -----------------------------------------------------------------------------------

mkdir -p /etc/slurm "$folder"/{munge,state,spool}
chmod 711 "$folder" "$folder/munge"
(umask 077 && head -c 1024 /dev/urandom > "$folder/munge/key")
host=$(hostname -s)
memory=$(awk '/^MemTotal/ {print int($2 / 1024 * 0.8)}' /proc/meminfo)
sed "s|@FOLDER@|$folder|; s|@HOST@|$host|; s|@MEMORY@|$memory|" tests/slurm/slurm.conf.in \
  > "$folder/slurm.conf"
ln -s "$folder/slurm.conf" /etc/slurm/slurm.conf # jobs find it there: the plugin clears SLURM_*

munged --foreground --force --socket="$folder/munge/socket" --key-file="$folder/munge/key" \
  --log-file="$folder/munge/log" --pid-file="$folder/munge/pid" --seed-file="$folder/munge/seed" \
  2> "$folder/munge/errors" &
daemons+=($!)
for _ in {1..20}; do if [ -S "$folder/munge/socket" ]; then break; else sleep 0.5; fi; done
slurmctld -D 2> /dev/null &
daemons+=($!)
slurmd -D 2> /dev/null &
daemons+=($!)
node() { sinfo --noheader --format=%t 2> /dev/null; }
for _ in {1..60}; do if [ "$(node)" = idle ]; then break; else sleep 1; fi; done
[ "$(node)" = idle ] || fail "the node is not idle: $(sinfo --noheader)"
say "$(sinfo --version): $(sinfo --noheader --format='partition %P, %D node, %c CPU, %m MB, %t')"

# -- a head that is killed -------------------------------------------------------------------

run=("$python" -m fairdiff_lib.run.cli run --preset smoke --profile slurm --partition debug --cores 1
  --runs-root "$folder/runs" --figures-root "$folder/figures")
records() { find "$folder/runs" -path '*/jobs/*.json' -printf '%f %T@\n' 2> /dev/null | sort; }

"${run[@]}" > "$folder/first.txt" 2>&1 &
head=$!
while kill -0 "$head" 2> /dev/null; do
  states=$(squeue --noheader --format=%T)
  if [[ $states == *RUNNING* && $states == *PENDING* ]]; then break; else sleep 1; fi
done
kill -0 "$head" || fail "the first head ended by itself: $(tail -n 3 "$folder/first.txt")"
kill -9 "$head" "$(pgrep -P "$head")"
wait "$head" 2> /dev/null || true
head=
records > "$folder/before.txt"
say "head killed with $(wc -l < "$folder/before.txt") jobs done; in the queue:"
squeue --noheader --format='           %i %T %k'
[ -n "$(squeue --noheader --states=RUNNING)" ] || fail "no job outlived its head"

# -- and one that goes on --------------------------------------------------------------------

"${run[@]}" > "$folder/second.txt" 2>&1 &
head=$!
wait "$head" || fail "the second head: $(tail -n 5 "$folder/second.txt")"
head=
said=$(grep 'a killed run left jobs in the queue' "$folder/second.txt") || true
[[ $said == *'1 waiting, cancelled; 1 running, awaited'* ]] \
  || fail "of the killed run's jobs it said: ${said:-nothing}"
say "second head: $said"
say "second head: $(grep -E '^done in' "$folder/second.txt")"

records > "$folder/after.txt"
[ -z "$(comm -23 "$folder/before.txt" "$folder/after.txt")" ] || fail "a finished job ran again"
"$python" - "$folder" << 'END' || fail "a job was executed twice, or not at all"
import json, pathlib, sys
from collections import Counter

folder = pathlib.Path(sys.argv[1])
paths = folder.glob("runs/*/*/jobs/*.json")
records = Counter(json.loads(path.read_text())["kind"] for path in paths)
completed = (folder / "jobs.txt").read_text().count("JobState=COMPLETED")
wanted = records.total() - records["04_generate"]  # it goes out with its training
print("notebooks:", records.total(), "recorded; submissions:", completed, "completed of", wanted)
sys.exit(completed != wanted or records["04_generate"] != 2)
END
for _ in {1..30}; do if [ -z "$(squeue --noheader)" ]; then break; else sleep 1; fi; done
say "submissions: $(wc -l < "$folder/jobs.txt"), of them" \
  "$(grep -o 'JobState=[A-Z]*' "$folder/jobs.txt" | sort | uniq -c | xargs)"
"${run[@]}" > "$folder/third.txt" 2>&1 || fail "the third call: $(tail -n 3 "$folder/third.txt")"
grep -q 'nothing to do' "$folder/third.txt" || fail "a third call found something to do"
say "passed: a third call finds nothing to do"
