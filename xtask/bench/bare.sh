#!/usr/bin/env bash
# The processes of one Kubernetes node started by hand, all at once and with nothing of ours, for comparison with
# `talosctl cluster create`. Prints the seconds until the API answers, until the node is registered, and until it is Ready.
# Runs in its own mount, process, network, host name and IPC namespaces (see bench.rs); everything ends with this script.
# usage: bare.sh KUBERNETES-PROGRAMS WORK-DIRECTORY
set -euo pipefail
binaries=$1 work=$2
token=bench address=10.98.0.2
limit=180

# Private directories in place of the machine's own.
mount --make-rprivate /
mkdir -p "$work" /etc/cni /var/lib/kubelet /var/lib/cni
mount -t tmpfs tmpfs "$work"
mkdir -p "$work"/{log,net,kubelet,etcd,containerd,pods}
mount --bind "$work/net" /etc/cni
mount --bind "$work/kubelet" /var/lib/kubelet
mount --make-rshared /
hostname bare

ip link set lo up
ip link add node type bridge
ip address add "$address/24" dev node
ip link set node up
ip route add default via 10.98.0.1

mkdir -p /etc/cni/net.d
cat > /etc/cni/net.d/10-bridge.conflist <<END
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipam": {"type": "host-local", "subnet": "10.244.0.0/24"}}]}
END
cat > "$work/containerd.toml" <<END
version = 2
root = "$work/containerd/root"
state = "$work/containerd/state"
[grpc]
  address = "$work/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
END
echo "$token,bench,bench,\"system:masters\"" > "$work/tokens.csv"
cat > "$work/kubeconfig" <<END
apiVersion: v1
kind: Config
clusters: [{name: bare, cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}}]
users: [{name: bare, user: {token: $token}}]
contexts: [{name: bare, context: {cluster: bare, user: bare}}]
current-context: bare
END
openssl genrsa -out "$work/service-account.key" 2048 2> "$work/log/openssl"

now() { date +%s%N; }
since() { awk -v a="$start" -v b="$(now)" 'BEGIN { printf "%.1f", (b - a) / 1e9 }'; }
run() { local name=$1; shift; "$@" > "$work/log/$name" 2>&1 & }
start=$(now)

run containerd containerd --config "$work/containerd.toml"
run etcd etcd --data-dir "$work/etcd"
run kube-apiserver "$binaries/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --cert-dir="$work/apiserver" \
  --advertise-address="$address" --service-cluster-ip-range=10.96.0.0/12 --authorization-mode=RBAC \
  --token-auth-file="$work/tokens.csv" --service-account-issuer=https://bare \
  --service-account-key-file="$work/service-account.key" --service-account-signing-key-file="$work/service-account.key"
run kube-controller-manager "$binaries/kube-controller-manager" --kubeconfig="$work/kubeconfig" \
  --cert-dir="$work/controller-manager" --service-account-private-key-file="$work/service-account.key" \
  --use-service-account-credentials --leader-elect=false
run kube-scheduler "$binaries/kube-scheduler" --kubeconfig="$work/kubeconfig" --leader-elect=false
run kubelet "$binaries/kubelet" --kubeconfig="$work/kubeconfig" --root-dir=/var/lib/kubelet --cert-dir="$work/pods" \
  --container-runtime-endpoint="unix://$work/containerd.sock" --node-ip="$address" \
  --hostname-override=bare --fail-swap-on=false --cgroups-per-qos=false --enforce-node-allocatable=

kubectl() { "$binaries/kubectl" --kubeconfig "$work/kubeconfig" --request-timeout 2s "$@" 2>&1; }
api='' registered=''
while true; do
  answer=$(kubectl get nodes -o 'jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}{end}') && {
    api=${api:-$(since)}
    [ -n "$answer" ] && registered=${registered:-$(since)}
  }
  [ "$answer" = bare=True ] && break
  if awk -v t="$(since)" -v l=$limit 'BEGIN { exit !(t > l) }'; then
    echo "not Ready after $limit s: $answer"
    tail -n 5 "$work"/log/*
    exit 1
  fi
  sleep 0.2
done
echo "$api $registered $(since)"
