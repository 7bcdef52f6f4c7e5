#!/usr/bin/env bash
# Start MLflow's server on this node, if it does not run yet: start_mlflow.sh ADDRESS [PORT]
# ADDRESS is the one that the nodes reach this one by, inside the network. The server asks nobody who they are: the
# security group, or the firewall, must let nobody else come to the port.
set -euo pipefail
address=$1 port=${2:-5000}
cd "$HOME"
if pid=$(cat mlflow.pid 2>/dev/null) && kill -0 "$pid" 2>/dev/null; then exit 0; fi
: "${MLFLOW_DATABASE:?set it in cluster.env}" "${MLFLOW_ARTIFACTS:?set it in cluster.env}"
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
nohup mlflow server --host "$address" --port "$port" --workers 2 \
    --allowed-hosts "$address:$port,localhost:$port,127.0.0.1:$port" \
    --backend-store-uri "$MLFLOW_DATABASE" --serve-artifacts --artifacts-destination "$MLFLOW_ARTIFACTS" \
    >> mlflow.log 2>&1 < /dev/null &
echo $! > mlflow.pid
