//! A long-running request is asked about again while its answer is under way: credentials end, and rights are taken
//! away.

use std::time::Duration;

use super::{Gate, assign_place};
use crate::{
    auth::{
        authenticate::{KeptCredentials, Unauthenticated},
        connection_places::ConnectionPlace,
        impersonation::Impersonation,
    },
    identity::Identity,
    request::RequestInfo,
    status::Status,
};

/// How often a long-running request is asked about again. Kubernetes does so only when the client watches anew, after
/// half an hour to an hour or whatever `timeoutSeconds` says.
pub(super) const ASK_AGAIN_EVERY: Duration = Duration::from_secs(60);

const TOO_MANY: u16 = 429;
/// How soon where a webhook could not be asked since too much is asked about the same user.
const ASK_AGAIN_SOON: Duration = Duration::from_secs(1);
/// How often in a row it may not be asked: whoever has so much asked all the while could keep for ever what they may
/// not see any more.
const MOST_UNANSWERED: u32 = 60;

/// A request whose answer is under way.
pub(super) struct LongRunning {
    pub(super) gate: Gate,
    pub(super) info: RequestInfo,
    pub(super) credentials: KeptCredentials,
    /// Whom the credentials stood for when that was last known.
    pub(super) sender: Option<Identity>,
    pub(super) as_whom: Option<Impersonation>,
    /// That is told when they are refused.
    pub(super) place: Option<ConnectionPlace>,
}

impl LongRunning {
    /// Completes once the request would be refused: its credential has expired or was deleted, or its user may not ask
    /// for this any more, or that could not be asked for too long.
    pub(super) async fn withdrawn(mut self) {
        let every = self.gate.ask_again_every;
        let (mut pause, mut unanswered) = (every, 0_u32);
        loop {
            tokio::time::sleep(pause).await;
            match self.is_allowed().await {
                Ok(()) => (pause, unanswered) = (every, 0),
                Err(status) if status.code == TOO_MANY && unanswered < MOST_UNANSWERED => {
                    (pause, unanswered) = (ASK_AGAIN_SOON.min(every), unanswered.saturating_add(1));
                }
                Err(status) => {
                    tracing::info!(reason = status.message, "a long-running request ends: it would be refused now");
                    return;
                }
            }
        }
    }

    /// What the stored objects do not tell for the moment withdraws nothing, nor does somebody else who cannot be
    /// asked. Who sent the request is then who it was before: whether they may ask for this is asked all the same. A
    /// 429 says that it could not be asked yet.
    async fn is_allowed(&mut self) -> Result<(), Status> {
        match self.gate.authenticator.authenticate(self.credentials.shown()).await {
            Ok(sender) => self.sender = Some(sender),
            Err(Unauthenticated::Undecided | Unauthenticated::Failed(_)) => {}
            Err(refused @ Unauthenticated::Refused) => {
                let refused = Err(refused.to_status());
                if let Some(place) = &self.place {
                    assign_place(place, &refused);
                }
                return refused.map(drop);
            }
        }
        let asked = match &self.sender {
            Some(sender) => self.may_ask(sender).await,
            None => Ok(()),
        };
        asked.or_else(|status| if matches!(status.code, 401 | 403 | TOO_MANY) { Err(status) } else { Ok(()) })
    }

    async fn may_ask(&self, sender: &Identity) -> Result<(), Status> {
        match &self.as_whom {
            None => self.gate.authorize(sender, &self.info).await,
            Some(as_whom) => self.gate.authorize(&self.gate.assumed(sender, as_whom).await?, &self.info).await,
        }
    }
}
