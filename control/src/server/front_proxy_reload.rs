//! What becomes of a changed file of `--requestheader-client-ca-file`: its authorities are trusted, clients are asked
//! for their certificates, and extension API servers are told of them.
//!
//! Source: `DynamicCAFromFile` of `k8s.io/apiserver`.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::tls::ListenerTls;
use crate::{
    aggregation::Authorities,
    auth::request_headers::FrontProxies,
    file_follower::{FollowedFile, UnusedFile, UsesFile},
};

/// The file. Kubernetes counts nothing of it.
pub const FRONT_PROXY_AUTHORITIES: FollowedFile =
    FollowedFile { what: "file of the authorities of front proxies", every: Duration::from_secs(1), metrics: None };

/// Who uses a changed file.
pub struct UsedFrontProxies {
    /// Who recognises front proxies.
    pub proxies: Arc<FrontProxies>,
    /// Who asks for their certificates.
    pub tls: Arc<ListenerTls>,
    /// What extension API servers are told.
    pub told: watch::Sender<Authorities>,
}

#[async_trait::async_trait]
impl UsesFile for UsedFrontProxies {
    async fn use_changed(&self, path: &Path, bytes: &[u8]) -> Result<(), UnusedFile> {
        let read = self.proxies.read_changed(path, bytes).map_err(UnusedFile::for_good)?;
        // Before they are trusted: all of this is used, or nothing.
        self.tls.ask_for(read.hints()).map_err(UnusedFile::for_now)?;
        self.proxies.replace(read);
        self.told.send_modify(|_| ());
        Ok(())
    }
}
