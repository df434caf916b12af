//! The certificate of the agent's HTTPS server: that of an earlier start where it still holds, and renewed while the
//! agent runs.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::SystemTime,
};

use kube::Client;

use crate::{
    https::Tls,
    register::{
        RegisterError,
        certificate::{self, Certificate},
        renewal::Renewable,
    },
};

/// Where the certificate is kept, and for whom it is.
#[derive(Clone)]
pub struct ServingCertificate {
    /// Asks for the signature, with the node's own certificate.
    pub client: Client,
    /// The Node's name; the certificate's subject is `system:node:NAME`.
    pub node_name: String,
    /// The node's address, by which the API connects.
    pub address: Ipv4Addr,
    /// Directory of the certificate's file, `serving.pem`.
    pub pki: PathBuf,
}

/// File name of the certificate.
const NAME: &str = "serving";

impl ServingCertificate {
    /// The kept one where it is under `ca_pem`, holds and names this node's address; else a new one.
    pub async fn obtain(&self, ca_pem: &str) -> Result<Certificate, RegisterError> {
        let now = SystemTime::now();
        let kept =
            Certificate::load(&self.pki, NAME)?.filter(|kept| kept.is_usable(ca_pem, now) && kept.names(self.address));
        match kept {
            Some(kept) => Ok(kept),
            None => {
                let issued = self.request().await?;
                issued.store(&self.pki, NAME)?;
                Ok(issued)
            }
        }
    }

    /// To be renewed for the server that uses it.
    pub fn served_by(self, tls: Tls) -> impl Renewable {
        Served { certificate: self, tls }
    }

    async fn request(&self) -> Result<Certificate, RegisterError> {
        let address = IpAddr::V4(self.address);
        Ok(certificate::request_serving(&self.client, &self.node_name, address).await?)
    }
}

struct Served {
    certificate: ServingCertificate,
    tls: Tls,
}

#[async_trait::async_trait]
impl Renewable for Served {
    fn purpose(&self) -> &'static str {
        "HTTPS server"
    }

    async fn request(&self, _expired: bool) -> Result<Certificate, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.certificate.request().await?)
    }

    fn take_up(&self, certificate: &Certificate) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.tls.replace(certificate)?;
        Ok(certificate.store(&self.certificate.pki, NAME)?)
    }
}
