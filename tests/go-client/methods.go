package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// How long one call may take.
const perCall = 10 * time.Second

// How long a stream is listened to, and the most messages that are read of it.
const (
	perStream     = 3 * time.Second
	mostPerStream = 3
)

// Methods that change a node even with an empty request. They are called as a reader, who must be refused.
var destructive = []protoreflect.FullName{
	"machine.MachineService.ApplyConfiguration",
	"machine.MachineService.Bootstrap",
	"machine.MachineService.EtcdAlarmDisarm",
	"machine.MachineService.EtcdDefragment",
	"machine.MachineService.EtcdForfeitLeadership",
	"machine.MachineService.EtcdLeaveCluster",
	"machine.MachineService.EtcdRecover",
	"machine.MachineService.EtcdRemoveMemberByID",
	"machine.MachineService.MetaDelete",
	"machine.MachineService.MetaWrite",
	"machine.MachineService.Reboot",
	"machine.MachineService.Reset",
	"machine.MachineService.Rollback",
	"machine.MachineService.Shutdown",
	"machine.MachineService.Upgrade",
}

// Answers to an empty request that say that something is wrong with the server or the way to it.
var broken = []codes.Code{
	codes.Aborted, codes.Canceled, codes.DataLoss, codes.Internal, codes.PermissionDenied, codes.ResourceExhausted,
	codes.Unauthenticated, codes.Unavailable, codes.Unknown,
}

// methods calls every method of every service once, with an empty request.
func methods(ctx context.Context, r *report, asAdmin, asReader *grpc.ClientConn) {
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				if slices.Contains(destructive, method.FullName()) {
					if err := call(ctx, r, asReader, method); status.Code(err) != codes.PermissionDenied {
						r.fault("%s: a reader is answered %v", method.FullName(), err)
					}
					continue
				}
				judge(r, method, call(ctx, r, asAdmin, method))
			}
		}
		return true
	})
}

func judge(r *report, method protoreflect.MethodDescriptor, err error) {
	answer := status.Convert(err)
	// What is missing says what it waits for; a method that the server does not know says nothing of the kind.
	missing := answer.Code() == codes.Unimplemented && !strings.Contains(answer.Message(), "not implemented yet") &&
		!strings.Contains(answer.Message(), "only available on control plane nodes")
	// Where the tests run there is no network, and so no time server: the node has to name the one that it looked for.
	offline := method.FullName() == "time.TimeService.Time" && answer.Code() == codes.Unavailable &&
		strings.HasPrefix(answer.Message(), "looking up time server ")
	if offline {
		return
	}
	if missing || slices.Contains(broken, answer.Code()) || answer.Code() == codes.DeadlineExceeded {
		r.fault("%s: %v", method.FullName(), err)
	}
}

// call sends an empty request, and reads a few messages.
func call(ctx context.Context, r *report, connection *grpc.ClientConn, method protoreflect.MethodDescriptor) error {
	r.calls++
	isUnary := !method.IsStreamingClient() && !method.IsStreamingServer()
	atMost := perStream
	if isUnary {
		atMost = perCall
	}
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	path := "/" + string(method.Parent().FullName()) + "/" + string(method.Name())
	request, response := empty(method.Input()), empty(method.Output())
	if isUnary {
		return connection.Invoke(ctx, path, request, response)
	}
	description := &grpc.StreamDesc{ClientStreams: method.IsStreamingClient(), ServerStreams: method.IsStreamingServer()}
	stream, err := connection.NewStream(ctx, description, path)
	if err != nil {
		return err
	}
	// A server that refuses ends the stream; its reason comes with the answer.
	if err := stream.SendMsg(request); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for range mostPerStream {
		err := stream.RecvMsg(response)
		// A stream that was opened may have nothing to say for a while.
		if errors.Is(err, io.EOF) || status.Code(err) == codes.DeadlineExceeded {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func empty(descriptor protoreflect.MessageDescriptor) proto.Message {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName())
	if err != nil {
		panic(err)
	}
	return kind.New().Interface()
}
