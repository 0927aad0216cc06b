//go:build tools

// Package offline says to `go mod tidy` what the bundle is built from. It is never compiled.
package offline

import _ "github.com/containernetworking/plugins/plugins/meta/flannel"
