//! Streams to pods: which there are, and which subresource of a pod asks for each.

use super::path::ResourcePath;

/// What is done with a pod, over a connection that speaks another protocol then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodStream {
    /// A command is run in a container.
    Exec,
    /// A container's main process is connected to.
    Attach,
    /// Ports are connected to.
    PortForward,
}

impl PodStream {
    const ALL: [Self; 3] = [Self::Exec, Self::Attach, Self::PortForward];

    /// The subresource of a pod that is asked for it.
    pub const fn segment(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
        }
    }

    /// The stream that a path asks for, if it is that of one.
    pub fn of(path: &ResourcePath) -> Option<Self> {
        let subresource = path.subresource.as_deref()?;
        let is_pod = path.group.is_empty() && path.resource == "pods";
        Self::ALL.into_iter().find(|stream| is_pod && stream.segment() == subresource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_subresources_of_pods_are_streams_to_them() {
        let of = |group: &str, resource: &str, subresource: &str| {
            PodStream::of(&ResourcePath {
                group: group.into(),
                resource: resource.into(),
                subresource: Some(subresource.into()),
                ..ResourcePath::default()
            })
        };
        for stream in PodStream::ALL {
            assert_eq!(of("", "pods", stream.segment()), Some(stream));
            assert_eq!(of("", "services", stream.segment()), None);
            assert_eq!(of("example.com", "pods", stream.segment()), None);
        }
        assert_eq!(of("", "pods", "log"), None);
        assert_eq!(PodStream::of(&ResourcePath { resource: "pods".into(), ..ResourcePath::default() }), None);
    }
}
