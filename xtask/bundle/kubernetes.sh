# Builds Kubernetes 1.20.2 from Debian's source package, without a network.
# Arguments: directory of the unpacked source, directory for the Go workspace, directory for the programs.
set -eu
source=$1
work=$2
out=$3
version=v1.20.2

export GOPATH="$work/gopath" GOCACHE="$work/gocache"
# The source is older than its go.mod would have Go believe: it builds only in a GOPATH with its own vendor directory.
export GO111MODULE=off CGO_ENABLED=0 GOFLAGS= GOTOOLCHAIN=local
export PATH="/usr/lib/go-1.19/bin:$PATH"
export KUBE_GIT_VERSION=$version KUBE_GIT_COMMIT=unknown KUBE_GIT_TREE_STATE=clean KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20

tree="$GOPATH/src/k8s.io/kubernetes"
mkdir -p "$GOPATH/src/k8s.io" "$out"
[ -e "$tree" ] || mv "$source" "$tree"
cd "$tree"

# The source has a reflect2 that reads Go's maps as compilers before 1.18 laid them out: everything that encodes a custom
# resource crashes. Debian's own package of it knows the newer ones.
reflect2=github.com/modern-go/reflect2
rm -r "vendor/$reflect2"
cp -r "/usr/share/gocode/src/$reflect2" "vendor/$reflect2"

flags="-s -w"
for package in component-base/version client-go/pkg/version kubernetes/vendor/k8s.io/component-base/version \
    kubernetes/vendor/k8s.io/client-go/pkg/version; do
    for pair in gitVersion=$version gitMajor=1 gitMinor=20 gitCommit=unknown gitTreeState=clean \
        buildDate=2021-01-13T13:20:00Z; do
        flags="$flags -X k8s.io/$package.$pair"
    done
done

echo "generating code"
make generated_files
for program in kubelet kube-controller-manager kube-scheduler kube-proxy kube-apiserver kubectl; do
    echo "building $program"
    go build -trimpath -ldflags "$flags" -o "$out/$program" "k8s.io/kubernetes/cmd/$program"
done
