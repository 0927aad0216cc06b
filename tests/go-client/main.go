// A client of the machine API in another language with another gRPC and TLS, generated from the messages of the wire.
//
// It lists, gets and watches every resource type of one node, decodes what it gets, and calls every method of every
// service. Each fault is a line on standard error; any of them makes it fail.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

// How long all calls together may take.
const patience = 3 * time.Minute

// The faults that were found.
type report struct {
	faults int
	calls  int
}

func (r *report) fault(format string, values ...any) {
	r.faults++
	fmt.Fprintf(os.Stderr, "fault: "+format+"\n", values...)
}

func main() {
	endpoint := flag.String("endpoint", "", "address and port of the API")
	node := flag.String("node", "", "address of the node that answers")
	admin := flag.String("admin", "", "folder with ca.crt, client.crt and client.key of an administrator")
	reader := flag.String("reader", "", "the same of a reader")
	flag.Parse()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "node", *node)
	r := &report{}
	asAdmin, err := connect(*endpoint, *admin)
	if err != nil {
		r.fault("connecting: %v", err)
		os.Exit(1)
	}
	asReader, err := connect(*endpoint, *reader)
	if err != nil {
		r.fault("connecting as a reader: %v", err)
		os.Exit(1)
	}
	types := resources(ctx, r, asAdmin)
	sensitive(ctx, r, asReader, types)
	methods(ctx, r, asAdmin, asReader)
	fmt.Printf("%d types, %d calls, %d faults\n", len(types), r.calls, r.faults)
	if r.faults > 0 {
		os.Exit(1)
	}
}

// connect dials with the identity in a folder. The server's certificate has to be one of the authority there.
func connect(endpoint, folder string) (*grpc.ClientConn, error) {
	pem, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil {
		return nil, err
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s/ca.crt", folder)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "client.crt"), filepath.Join(folder, "client.key"))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: authorities, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	return grpc.NewClient(
		endpoint,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(32<<20)),
	)
}
