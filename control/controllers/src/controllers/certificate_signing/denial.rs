//! Why a CertificateSigningRequest is denied. The texts stand in its condition, for the person or program that made it.

use std::time::Duration;

use fairlead_client::node_silence::NODE_REPORTS;
use fairlead_pki::identity::NODES;

/// Why a request is denied; stands in its condition `Denied`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The request's bytes are no text.
    #[error("spec.request is not PEM")]
    NotPem,
    /// The request is no PKCS #10 in PEM.
    #[error("spec.request: {0}")]
    Unreadable(String),
    /// The subject is no node's.
    #[error("the subject must be O = {NODES} and CN = system:node:NAME, not O = {organizations:?} and CN = {names:?}")]
    Subject {
        /// The O of the request.
        organizations: Vec<String>,
        /// The CN of the request.
        names: Vec<String>,
    },
    /// A usage that the signer's certificates never have.
    #[error("the usage {usage:?} is not given by {signer}")]
    ForeignUsage {
        /// As the request has it.
        usage: String,
        /// `spec.signerName`.
        signer: String,
    },
    /// Without this usage the certificate would be of no use.
    #[error("spec.usages lacks {0:?}")]
    LacksUsage(&'static str),
    /// An alternative name that is neither a DNS name nor an address.
    #[error("only DNS names and addresses may stand in the subject alternative name")]
    AlternativeName,
    /// A client certificate that names hosts.
    #[error("a node's client certificate has no subject alternative names")]
    NamedClient,
    /// A join token is no way to become a node that has joined before and still reports.
    #[error(
        "node {node:?} is there and reports: give this host another name, or stop that node's agent and wait until it \
         has been silent for --node-monitor-grace-period, or delete the Node"
    )]
    NodeIsThere {
        /// Its name.
        node: String,
        /// After this long it would count as silent, should nothing come from it.
        silent_in: Duration,
    },
    /// A serving certificate that names none.
    #[error("a serving certificate needs a DNS name or an address")]
    NamelessServer,
    /// The requester is another node, or none.
    #[error("{username:?} may not ask for a serving certificate of {common_name:?}")]
    NotTheNode {
        /// Who asks.
        username: String,
        /// The node of the certificate.
        common_name: String,
    },
    /// Names and addresses that are not in the Node's status.
    #[error("the node does not have the names {}", .0.join(", "))]
    ForeignNames(Vec<String>),
    /// Names and addresses of the control service, of Services, of other nodes, or that stand for many hosts.
    #[error("node {node:?} gets no serving certificate for {}", names.join(", "))]
    ReservedNames {
        /// The node of the certificate.
        node: String,
        /// What the certificate may not name.
        names: Vec<String>,
    },
}

impl Denial {
    /// The reason in the condition, for programs: the agent that joins asks again after [`NODE_REPORTS`] alone.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NodeIsThere { .. } => NODE_REPORTS,
            _ => "NotPermitted",
        }
    }

    /// When another decision is possible without anybody's doing.
    pub fn silent_in(&self) -> Option<Duration> {
        match self {
            Self::NodeIsThere { silent_in, .. } => Some(*silent_in),
            _ => None,
        }
    }
}
