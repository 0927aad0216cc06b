//! The dependency graph of controllers.

use controller::{Edge, EdgeKind};
use tonic::{Request, Response, Status};
use wire::inspect as api;
use wire::inspect::inspect_service_server::InspectService;

use crate::machine_service::Service;

#[tonic::async_trait]
impl InspectService for Service {
    async fn controller_runtime_dependencies(
        &self,
        _: Request<()>,
    ) -> Result<Response<api::ControllerRuntimeDependenciesResponse>, Status> {
        let edges = self.machine.controllers.dependency_graph().into_iter().map(edge).collect();
        let messages = vec![api::ControllerRuntimeDependency { metadata: None, edges }];
        Ok(Response::new(api::ControllerRuntimeDependenciesResponse { messages }))
    }
}

fn edge(edge: Edge) -> api::ControllerDependencyEdge {
    let edge_type = match edge.kind {
        EdgeKind::OutputExclusive => api::DependencyEdgeType::OutputExclusive,
        EdgeKind::OutputShared => api::DependencyEdgeType::OutputShared,
        EdgeKind::InputStrong => api::DependencyEdgeType::InputStrong,
        EdgeKind::InputWeak => api::DependencyEdgeType::InputWeak,
        EdgeKind::InputDestroyReady => api::DependencyEdgeType::InputDestroyReady,
    };
    api::ControllerDependencyEdge {
        controller_name: edge.controller.to_owned(),
        edge_type: edge_type.into(),
        resource_namespace: edge.namespace,
        resource_type: edge.type_name,
        resource_id: edge.id,
    }
}
