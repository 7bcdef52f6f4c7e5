#!/bin/sh
# All tests, in two halves side by side: those that wait for clusters most of the time, and those that compute, with the
# tests that make clusters of their own: so both take about as long.
# Arguments go to pytest, in both. What the second half said is printed when both are done; its last line is pytest's.
set -u
said=$(mktemp)
trap 'rm -f "$said"' EXIT
own="tests/cluster/test_autoscaling.py tests/cluster/test_chaos.py tests/cluster/test_nodes.py
tests/cluster/test_job_submit.py tests/e2e/test_demo_query.py tests/e2e/test_serve_config.py"
"$BIN/python" -m pytest tests/unit tests/test_docs.py tests/test_layering.py retrieval $own "$@" >"$said" 2>&1 &
computing=$!
trap 'kill $computing 2>/dev/null; cat "$said"; exit 130' INT TERM  # who ends a run that hangs sees where
"$BIN/python" -m pytest tests/e2e tests/cluster tests/gpu $(printf -- '--ignore=%s ' $own) "$@"
waiting=$?
wait $computing
computed=$?
cat "$said"
# 5: nothing of that half was asked for; it counts only where nothing of the other was either.
[ $waiting -eq 5 ] && [ $computed -ne 5 ] && waiting=0
[ $computed -eq 5 ] && [ $waiting -eq 0 ] && computed=0
[ $waiting -ne 0 ] && exit $waiting
exit $computed
