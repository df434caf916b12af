//! Why a check of a container failed. The texts are the kubelet's: people see them in events, and look them up.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Why a probe or a hook did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// The probe names none of exec, HTTP, TCP and gRPC.
    #[error("the probe has no action")]
    NoAction,
    /// The pod was updated while the check was under way.
    #[error("the container is not in the pod any more")]
    NoContainer,
    /// No port of the container has this name, or the number is none.
    #[error("invalid port {0:?}")]
    InvalidPort(IntOrString),
    /// A gRPC port that does not fit 16 bits.
    #[error("invalid port {0}")]
    InvalidPortNumber(i32),
    /// The command ended with another code than 0.
    #[error("{output}")]
    CommandFailed {
        /// The beginning of what it wrote.
        output: String,
    },
    /// The command ran too long and was ended.
    #[error("command {command:?} timed out after {limit:?}")]
    CommandTimedOut {
        /// The command and its arguments.
        command: Vec<String>,
        /// The probe's `timeoutSeconds`, or what is left of a hook's time.
        limit: Duration,
    },
    /// The runtime could not run the command.
    #[error("{0}")]
    Runtime(String),
    /// An HTTP server did not answer in time.
    #[error("context deadline exceeded after {0:?}")]
    HttpTimedOut(Duration),
    /// An HTTP server could not be asked.
    #[error("Get {url:?}: {cause}")]
    Http {
        /// With scheme, host and port.
        url: String,
        /// What the socket, TLS or HTTP said.
        cause: String,
    },
    /// An HTTP server answered with another code than 200 to 399.
    #[error("HTTP probe failed with statuscode: {0}")]
    HttpStatus(u16),
    /// Nothing accepts connections there.
    #[error("dial tcp {address}: {cause}")]
    Tcp {
        /// Host and port.
        address: String,
        /// What the socket said.
        cause: String,
    },
    /// No HTTP/2 connection to a gRPC server.
    #[error("error: failed to connect service at {address:?}: {cause}")]
    GrpcConnect {
        /// Host and port.
        address: String,
        /// What the socket or HTTP said.
        cause: String,
    },
    /// A gRPC server did not answer in time.
    #[error("timeout: health rpc did not complete within {0:?}")]
    GrpcTimedOut(Duration),
    /// A gRPC server's answer is none of `grpc.health.v1`.
    #[error("error: health rpc probe failed: {0}")]
    GrpcCall(String),
    /// A gRPC server without the service `grpc.health.v1.Health`.
    #[error("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {0}")]
    GrpcUnimplemented(String),
    /// A gRPC server says that it does not serve.
    #[error("service unhealthy (responded with {0:?})")]
    GrpcUnhealthy(&'static str),
}
