//! Who asks for frontends: a Service, or a pod for its host ports.

use std::{fmt, sync::Arc};

use crate::world::ObjectName;

/// Services come first in its order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendOwner {
    /// By namespace and name: another Service of the same name takes over its frontends.
    Service(ObjectName),
    /// By uid too: two pods may have one name for a while, the older on its way out.
    Pod {
        /// Namespace and name of the pod.
        name: ObjectName,
        /// Tells two pods of one name apart.
        uid: Arc<str>,
    },
}

impl FrontendOwner {
    /// The host ports of one pod.
    pub fn pod(name: ObjectName, uid: Arc<str>) -> Self {
        Self::Pod { name, uid }
    }

    /// No pod comes before it.
    pub fn first_pod() -> Self {
        Self::pod(ObjectName::new("", ""), "".into())
    }

    /// Name of the Service or pod.
    pub fn name(&self) -> &ObjectName {
        match self {
            Self::Service(name) | Self::Pod { name, .. } => name,
        }
    }

    /// Whether it is a pod with host ports.
    pub fn is_pod(&self) -> bool {
        matches!(self, Self::Pod { .. })
    }
}

impl fmt::Display for FrontendOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Pod { name, .. } => write!(f, "Pod {name}"),
        }
    }
}
