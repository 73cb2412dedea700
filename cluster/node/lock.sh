#!/usr/bin/env bash
# Makes the locks of this folder anew, from pyproject.toml and constraints.txt (the versions that the tests ran with); needs uv.
# Run it after a dependency has changed, on any machine: what it resolves for is a node (Linux, x86-64, Python 3.11).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
resolve() { uv pip compile --python-version 3.11 --python-platform x86_64-manylinux_2_28 --quiet --no-header --no-annotate "$@"; }
# The extras: sweeps that search with Optuna, and Ray Serve (serve.yaml, kuberay-rayservice.yaml).
# With hashes: a package that was replaced in the index is refused.
resolve --generate-hashes --extra optuna --extra serve --constraint constraints.txt pyproject.toml --output-file cluster/node/requirements.lock
# What the heads of the three clouds need besides, for the autoscaler; without hashes, since each head installs a part of it.
resolve --constraint cluster/node/requirements.lock --output-file cluster/node/clouds.lock - <<'CLIENTS'
boto3>=1.28
google-api-python-client>=2.100
google-auth-httplib2>=0.2
cryptography>=42
azure-common==1.1.28
azure-core==1.35.0
azure-identity==1.23.1
azure-mgmt-compute==35.0.0
azure-mgmt-network==29.0.0
azure-mgmt-resource==24.0.0
msrestazure==0.6.4.post1
CLIENTS
