//! A control service that runs: what its owner may ask of it, and its stop.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fairlead_client::Api;
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use kube::{Client, api::PostParams};

use super::{listener::Listener, lock::DataDirLock, store_closing::StoreClosing};
use crate::{
    api::Api as KubernetesApi,
    audit::Audit,
    auth::bootstrap_token::{self, BootstrapToken},
    controllers::Controllers,
    scheduler::Scheduler,
    supervise::Supervisor,
};

/// Why a join token could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot store the join token")]
pub struct TokenError(#[source] Box<kube::Error>);

/// A running control service.
pub struct Running {
    pub(super) client: Client,
    pub(super) address: SocketAddr,
    pub(super) ca_hash: String,
    pub(super) admin_kubeconfig: PathBuf,
    pub(super) api: KubernetesApi,
    pub(super) listener: Listener,
    /// `None` where others run controllers and scheduler.
    pub(super) workers: Option<Workers>,
    pub(super) supervisor: Supervisor,
    /// `None` where nothing is audited.
    pub(super) audit: Option<Audit>,
    pub(super) store: StoreClosing,
    /// Released after all other parts have stopped.
    pub(super) lock: DataDirLock,
}

/// What works on the objects beside the API.
pub(super) struct Workers {
    pub(super) controllers: Arc<Controllers>,
    pub(super) scheduler: Arc<Scheduler>,
}

impl Running {
    /// A client in process that may do everything.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The address bound to, with the true port where the configured one was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SHA-256 of the CA's certificate in hex: the last part of a join token.
    pub fn ca_hash(&self) -> &str {
        &self.ca_hash
    }

    /// Path of the kubeconfig of `kubernetes-admin`, mode 0600.
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// Makes a join token, `ID.SECRET.CAHASH`, that is good for `lifetime`.
    pub fn new_join_token(&self, lifetime: Duration) -> BoxFuture<'_, Result<String, TokenError>> {
        async move {
            let token = BootstrapToken::random();
            let secret = token.to_secret(bootstrap_token::expiration(Timestamp::now(), lifetime));
            Api::namespaced(self.client.clone(), bootstrap_token::NAMESPACE)
                .create(&PostParams::default(), &secret)
                .await
                .map_err(|e| TokenError(Box::new(e)))?;
            Ok(token.join_text(&self.ca_hash))
        }
        .boxed()
    }

    /// Stops: controllers first, then watches end, requests under way get their answers, and the store is closed.
    pub fn shutdown(self) -> BoxFuture<'static, ()> {
        self.stop_parts().boxed()
    }

    async fn stop_parts(self) {
        self.api.health().shut_down();
        if let Some(workers) = &self.workers {
            tokio::join!(workers.scheduler.shutdown(), workers.controllers.shutdown());
        }
        self.supervisor.shutdown_within(TASKS_END_WITHIN).await;
        self.listener.drain().await;
        // Writes whose clients have gone are still under way.
        self.api.drain().await;
        if let Some(audit) = &self.audit {
            audit.shut_down().await;
        }
        let Self { client, api, workers, supervisor, store, lock, .. } = self;
        drop((client, api, workers, supervisor));
        store.wait().await;
        drop(lock);
    }
}

/// How long the service's own tasks may take to end.
const TASKS_END_WITHIN: Duration = Duration::from_secs(10);
