# Builds the client from the messages of the wire: generates them, then compiles.
# What is built is what go.sum beside this script names.
# Arguments: directory of this script, directory of the .proto files, Go's program, directory for scratch files, the program.
set -eu
source=$1
protos=$2
go=$3
work=$4
out=$5

# A Go that was unpacked somewhere does not know where it is.
case $go in
*/*) GOROOT=$(dirname "$(dirname "$go")") && export GOROOT ;;
esac
export GOPATH="$work/gopath" GOCACHE="$work/gocache" GOTOOLCHAIN=local GO111MODULE=on GOWORK=off CGO_ENABLED=0
# The module cache is removed like everything else in the scratch directory; Go would make it read-only.
export GOFLAGS="-mod=readonly -modcacherw -trimpath -buildvcs=false"

mkdir -p "$work/client" "$work/bin"
cp "$source"/*.go "$source/go.mod" "$source/go.sum" "$work/client"
cd "$work/client"
echo "fetching modules"
"$go" mod download
echo "building the generators"
"$go" build -o "$work/bin/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc

# Each folder is a Go package. google.rpc is a module of its own; the protocols of discovery, of key services and of
# receivers of events are no node's.
files=$(cd "$protos" && find . -name '*.proto' ! -path './google/*' ! -path './sidero/*' ! -path './events/*' ! -path './security/*' | sed 's,^\./,,' | sort)
packages="Mgoogle/rpc/status.proto=google.golang.org/genproto/googleapis/rpc/status"
for file in $files; do
    packages="$packages,M$file=client/pb/$(dirname "$file")"
done
echo "generating"
# shellcheck disable=SC2086
PATH="$work/bin:$PATH" protoc --proto_path="$protos" \
    --go_out=. --go_opt="module=client,$packages" \
    --go-grpc_out=. --go-grpc_opt="module=client,$packages" $files
{
    echo "package main"
    echo "import ("
    for file in $files; do echo "	_ \"client/pb/$(dirname "$file")\""; done | sort -u
    echo ")"
} > registered.go
echo "building the client"
"$go" build -o "$out" .
