//! Looks up what authentication and authorisation need from the stored objects, at the moment they need it.
//!
//! Asked anew each time, of the store in this process: a pod's Secret can be read in the very moment the pod is bound.

use k8s_openapi::api::{
    certificates::v1::CertificateSigningRequest,
    core::v1::{Pod, Secret},
};
use kube::{Api, Client, api::ListParams};

use super::{
    authorize::Fact,
    bootstrap_token::{self, BootstrapToken},
    node,
};

/// The stored objects as the gate sees them.
#[derive(Clone)]
pub struct StoredFacts {
    client: Client,
}

impl StoredFacts {
    /// `client` reaches the API in process, past the gate.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The Secret behind a join token.
    pub async fn secret_of(&self, token: &BootstrapToken) -> Result<Option<Secret>, kube::Error> {
        Api::namespaced(self.client.clone(), bootstrap_token::NAMESPACE).get_opt(&token.secret_name()).await
    }

    pub async fn holds(&self, fact: &Fact) -> Result<bool, kube::Error> {
        match fact {
            Fact::PodBoundTo { namespace, pod, node } => {
                let pod: Option<Pod> = Api::namespaced(self.client.clone(), namespace).get_opt(pod).await?;
                Ok(pod.and_then(|p| p.spec).and_then(|s| s.node_name).as_deref() == Some(node))
            }
            Fact::ReferencedByPodOf { node, kind, namespace, name } => {
                let selector = format!("spec.nodeName={node}");
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
                let pods = pods.list(&ListParams::default().fields(&selector)).await?;
                Ok(pods.items.iter().filter_map(|p| p.spec.as_ref()).any(|spec| node::references(spec, *kind, name)))
            }
            Fact::RequestMadeBy { request, user } => {
                let request: Option<CertificateSigningRequest> = Api::all(self.client.clone()).get_opt(request).await?;
                Ok(request.and_then(|r| r.spec.username).as_deref() == Some(user))
            }
        }
    }
}
