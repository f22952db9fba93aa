#!/bin/sh
# Measures the peer (Express, Mongoose, Socket.IO) with the load generator that measures Corriente, on a MongoDB that is
# started for it, in both of its modes. Arguments go to the load generator, such as --seconds 5 --runs 3.
#
#   benches/peer-node/run.sh                      the rows of docs/performance.md that the peer can do
#   SCENARIOS="fanout-100" benches/peer-node/run.sh --runs 1
#
# Needs Node.js 20 or newer and npm, besides what Corriente itself needs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
scenarios=${SCENARIOS:-"fanout-100 publishers idle-10000"}
files=$(mktemp -d)
results=${RESULTS:-$files}
mongo= peer=

finish() {
  [ -z "$peer" ] || kill "$peer" 2>/dev/null || true
  [ -z "$mongo" ] || kill "$mongo" 2>/dev/null || true
  wait
  rm -rf "$files"
}
trap finish EXIT
trap 'exit 130' INT TERM

# Waits, at most so many seconds, until a line of a file begins with some words, and prints the rest of the line.
line_of() {
  tries=$(($3 * 10))
  while [ "$tries" -gt 0 ]; do
    if found=$(grep "^$2" "$1" 2>/dev/null); then
      echo "${found#"$2"}"
      return 0
    fi
    tries=$((tries - 1))
    sleep 0.1
  done
  echo "'$2' has not come within $3 s:" >&2
  cat "$1" >&2
  return 1
}

cd "$root"
# Together: each by itself would have its own features of the dependencies, and compile them anew.
cargo build --release --quiet --bins --example load
npm ci --silent --no-audit --no-fund --prefix "$here"
hard=$(ulimit -H -n)
ulimit -n "$hard"

target/release/mongo-replica-set >"$files/mongo" 2>&1 &
mongo=$!
uri=$(line_of "$files/mongo" "mongodb: " 180)

# Each scenario has a peer of its own: the memory of one that has worked says nothing about its connections.
measure() {
  name=$1
  mode=$2
  shift 2
  for scenario in $scenarios $extra; do
    # shellcheck disable=SC2086 # No mode is no argument.
    MONGODB_URI=$uri NODE_ENV=production node "$here/server.js" $mode >"$files/peer" 2>&1 &
    peer=$!
    url=$(line_of "$files/peer" "listening on " 60)
    # The content makes a frame as long as Corriente's. A peer that is overloaded may lose connections, which ends that
    # scenario; the next one may still go.
    target/release/examples/load --scenario "$scenario" --transport socket.io --url "$url" --server-pid "$peer" \
      --name "$name" --no-goals --mongodb-uri "$uri" --post-path /messages --content-bytes 120 \
      --json "$results/peer$mode-$scenario.json" "$@" || true
    kill "$peer"
    wait "$peer" 2>/dev/null || true
    peer=
  done
}

echo "Node $(node --version)"
extra=
measure "Express + Mongoose + Socket.IO" "" "$@"
extra="external-writer external-1000"
measure "the same on a change stream" --change-stream "$@"
