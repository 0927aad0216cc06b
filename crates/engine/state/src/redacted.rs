//! Stand-in for the spec of a sensitive resource that is no longer in force: its type and nothing else.

use std::{any::Any, sync::Arc};

use resources::{AnySpec, Definition, Sensitivity};

use crate::resource::AnyResource;

/// A spec whose value was dropped. Both of its forms are empty, and it equals nothing.
#[derive(Debug)]
struct Redacted(&'static Definition);

impl AnySpec for Redacted {
    fn definition(&self) -> &'static Definition {
        self.0
    }

    fn tree(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn yaml(&self) -> String {
        String::new()
    }

    fn proto(&self) -> Vec<u8> {
        Vec::new()
    }

    fn same(&self, _: &dyn AnySpec) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

pub(crate) fn is_sensitive(resource: &AnyResource) -> bool {
    resource.spec.definition().sensitivity == Sensitivity::Sensitive
}

/// The resource with its metadata alone.
pub(crate) fn redact(resource: &AnyResource) -> AnyResource {
    let spec = Arc::new(Redacted(resource.spec.definition()));
    AnyResource { metadata: Arc::clone(&resource.metadata), spec }
}

pub(crate) fn is_redacted(resource: &AnyResource) -> bool {
    resource.spec.as_any().is::<Redacted>()
}
