package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	cosi "client/pb/cosi/v1alpha1"
)

// How long a watch may take to send what is there.
const bootstrap = 10 * time.Second

const (
	metaNamespace = "meta"
	definitions   = "ResourceDefinitions.meta.cosi.dev"
)

// resources reads every type as an administrator; it returns the definitions.
func resources(ctx context.Context, r *report, connection *grpc.ClientConn) []*cosi.ResourceDefinitionSpec {
	state := cosi.NewStateClient(connection)
	listed, err := list(ctx, r, state, metaNamespace, definitions)
	if err != nil {
		r.fault("listing the definitions: %v", err)
		return nil
	}
	var types []*cosi.ResourceDefinitionSpec
	for _, resource := range listed {
		spec := &cosi.ResourceDefinitionSpec{}
		if err := proto.Unmarshal(resource.GetSpec().GetProtoSpec(), spec); err != nil {
			r.fault("definition %s: %v", resource.GetMetadata().GetId(), err)
			continue
		}
		types = append(types, spec)
	}
	defined := map[string]bool{}
	for _, spec := range types {
		defined[spec.GetResourceType()] = true
		if _, known := messages[spec.GetResourceType()]; !known {
			r.fault("%s is not in the table of types", spec.GetResourceType())
		}
	}
	for name := range messages {
		if !defined[name] {
			r.fault("%s is not defined", name)
		}
	}
	for _, spec := range types {
		one(ctx, r, state, spec)
	}
	return types
}

// one lists a type, gets each of its resources, and watches it from what is there.
func one(ctx context.Context, r *report, state cosi.StateClient, spec *cosi.ResourceDefinitionSpec) {
	name, namespace := spec.GetResourceType(), spec.GetDefaultNamespace()
	listed, err := list(ctx, r, state, namespace, name)
	if err != nil {
		r.fault("listing %s: %v", name, err)
		return
	}
	for _, resource := range listed {
		id := resource.GetMetadata().GetId()
		decode(r, resource)
		r.calls++
		got, err := state.Get(ctx, &cosi.GetRequest{Namespace: namespace, Type: name, Id: id})
		switch {
		// It may have gone meanwhile.
		case status.Code(err) == codes.NotFound:
		case err != nil:
			r.fault("getting %s/%s: %v", name, id, err)
		case got.GetResource().GetMetadata().GetId() != id:
			r.fault("getting %s/%s: got %v", name, id, got.GetResource().GetMetadata())
		}
	}
	if err := watch(ctx, r, state, namespace, name, len(listed)); err != nil {
		r.fault("watching %s: %v", name, err)
	}
}

func list(
	ctx context.Context, r *report, state cosi.StateClient, namespace, name string,
) ([]*cosi.Resource, error) {
	r.calls++
	stream, err := state.List(ctx, &cosi.ListRequest{Namespace: namespace, Type: name})
	if err != nil {
		return nil, err
	}
	var listed []*cosi.Resource
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return listed, nil
		}
		if err != nil {
			return nil, err
		}
		listed = append(listed, part.GetResource())
	}
}

// decode reads both forms of a spec: YAML is there, and protobuf where the type has a message, of known fields alone.
func decode(r *report, resource *cosi.Resource) {
	metadata, spec := resource.GetMetadata(), resource.GetSpec()
	if spec.GetYamlSpec() == "" {
		r.fault("%s/%s has no YAML form", metadata.GetType(), metadata.GetId())
	}
	name := messages[metadata.GetType()]
	if name == "" {
		return
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		r.fault("%s: message %s: %v", metadata.GetType(), name, err)
		return
	}
	message := kind.New().Interface()
	if err := proto.Unmarshal(spec.GetProtoSpec(), message); err != nil {
		r.fault("%s/%s is no %s: %v", metadata.GetType(), metadata.GetId(), name, err)
		return
	}
	if fields := message.ProtoReflect().GetUnknown(); len(fields) > 0 {
		r.fault("%s/%s has fields that %s lacks: %x", metadata.GetType(), metadata.GetId(), name, fields)
	}
}

// watch expects an empty first message, then about as many resources as were listed, then the end of what is there.
func watch(ctx context.Context, r *report, state cosi.StateClient, namespace, name string, listed int) error {
	ctx, cancel := context.WithTimeout(ctx, bootstrap)
	defer cancel()
	r.calls++
	options := &cosi.WatchOptions{BootstrapContents: true}
	request := &cosi.WatchRequest{Namespace: namespace, Type: name, Options: options, ApiVersion: 1}
	stream, err := state.Watch(ctx, request)
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if len(first.GetEvent()) > 0 {
		r.fault("watching %s: the first message has events: %v", name, first.GetEvent())
	}
	seen := 0
	for {
		part, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, event := range part.GetEvent() {
			switch event.GetEventType() {
			case cosi.EventType_CREATED:
				seen++
			case cosi.EventType_BOOTSTRAPPED:
				if seen == 0 && listed > 0 {
					r.fault("watching %s: it begins with nothing, and %d were listed", name, listed)
				}
				return nil
			case cosi.EventType_ERRORED:
				r.fault("watching %s: %s", name, event.GetError())
			}
		}
	}
}

// sensitive checks that a reader reads what is open, and nothing else.
func sensitive(ctx context.Context, r *report, connection *grpc.ClientConn, types []*cosi.ResourceDefinitionSpec) {
	state := cosi.NewStateClient(connection)
	for _, spec := range types {
		name := spec.GetResourceType()
		_, err := list(ctx, r, state, spec.GetDefaultNamespace(), name)
		isSecret := spec.GetSensitivity() == cosi.ResourceDefinitionSpec_SENSITIVE
		refused := status.Code(err) == codes.PermissionDenied &&
			strings.HasPrefix(status.Convert(err).Message(), "not authorized")
		if isSecret && !refused || !isSecret && err != nil {
			r.fault("a reader lists %s (sensitive: %v): %v", name, isSecret, err)
		}
	}
}
