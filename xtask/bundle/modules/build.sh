# Builds Kubernetes, CoreDNS and Flannel from Go modules, as the module proxy that the machine's Go is configured for serves them.
# What is built is what the lock files (go.sum) beside this script name.
# Arguments: directory of this script, Go's root, directory for scratch files, directory for the programs.
# KUBERNETES_VERSION, KUBERNETES_DATE and FLANNEL_VERSION are what the programs report of themselves.
set -eu
recipe=$1
goroot=$2
work=$3
out=$4

export GOROOT="$goroot" GOPATH="$work/gopath" GOCACHE="$work/gocache" GOTOOLCHAIN=local
export GO111MODULE=on GOWORK=off CGO_ENABLED=0
# The module cache is removed like everything else in the scratch directory; Go would make it read-only.
export GOFLAGS="-mod=readonly -modcacherw -trimpath -buildvcs=false"
go="$goroot/bin/go"
mkdir -p "$out"

minor=$(echo "$KUBERNETES_VERSION" | cut -d. -f2)
flags="-s -w"
for package in component-base/version client-go/pkg/version; do
    for pair in gitVersion=v$KUBERNETES_VERSION gitMajor=1 gitMinor=$minor gitCommit=unknown gitTreeState=clean \
        buildDate=$KUBERNETES_DATE; do
        flags="$flags -X k8s.io/$package.$pair"
    done
done

cd "$recipe/kubernetes"
echo "fetching modules"
"$go" mod download
for program in kubelet kube-controller-manager kube-scheduler kube-proxy kube-apiserver kubectl; do
    echo "building $program"
    "$go" build -ldflags "$flags" -o "$out/$program" "k8s.io/kubernetes/cmd/$program"
done

cd "$recipe/coredns"
echo "building coredns"
"$go" build -ldflags "-s -w" -o "$out/coredns" .

cd "$recipe/flannel"
echo "building flanneld"
# One of its backends, which nobody here uses, is in C and cannot be left out.
CGO_ENABLED=1 "$go" build -tags netgo,osusergo -o "$out/flanneld" -ldflags "-s -w -linkmode external -extldflags -static \
    -X github.com/flannel-io/flannel/pkg/version.Version=v$FLANNEL_VERSION" github.com/flannel-io/flannel

cd "$recipe/cni"
echo "building the CNI plug-in of flannel"
"$go" build -ldflags "-s -w" -o "$out/flannel" github.com/containernetworking/plugins/plugins/meta/flannel
cp "$recipe/install-cni.sh" "$out/install-cni.sh"
