# Runs Kubernetes' own tests of kubectl (test/cmd) in this directory, a copy of the parts of Kubernetes' source that they
# need, against a control service that runs already. The suite's own script builds and starts its servers first; all that
# follows that is the same here.
#
# SECURE_API_PORT: where the service listens; ADMIN_KUBECONFIG: how to reach it as its administrator; TMPDIR: holds
# apiserver.crt; WHAT: the cases, without `run_` and `_tests`, or nothing for all.
set -o errexit -o nounset -o pipefail
source hack/lib/init.sh
source hack/lib/test.sh
source test/cmd/legacy-script.sh

# `runTests` exits where a case has failed, but not before its last one.
all_run=
cleanup() {
  stop-proxy
  [ -z "$all_run" ] || echo "the suite has ended"
}
kube::util::trap_add cleanup EXIT SIGINT
kube::util::ensure-temp-dir
export HOME=$KUBE_TEMP
kube::util::ensure-gnu-sed

CONTEXT=test
mkdir -p "$HOME/.kube"
cp "$ADMIN_KUBECONFIG" "$HOME/.kube/config"
user=$(kubectl config view -o jsonpath='{.users[0].name}')
kubectl config set-cluster local --insecure-skip-tls-verify --server "https://127.0.0.1:$SECURE_API_PORT"
kubectl config set-context "$CONTEXT" --user "$user" --cluster local
kubectl config use-context "$CONTEXT"
# No agent runs: the node is an object that the tests look at.
kubectl create -f - << __EOF__
{"kind": "Node", "apiVersion": "v1", "metadata": {"name": "127.0.0.1", "annotations": {"save-managers": "true"}},
 "status": {"capacity": {"memory": "1Gi"}}}
__EOF__
export SUPPORTED_RESOURCES=("*")
# The last thing that `runTests` does, whatever has failed.
kube::test::clear_all() {
  kubectl delete rc --all --grace-period=0 --force
  kubectl delete pods --all --grace-period=0 --force
  all_run=yes
}
runTests
