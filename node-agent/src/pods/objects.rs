//! ConfigMaps, Secrets and tokens of this node's pods, as they are now: each is watched by its own name, and only while
//! something needs it, since a node may read no others. While the API is away, as they were last known.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use fairlead_client::{Api, Events, Object};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Client, Resource, runtime::watcher};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::AbortHandle};

use super::{
    kept::{self, API_ANSWERS_WITHIN, Kept},
    token,
};

/// Kinds of objects that pods refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectKind {
    /// Text and binary keys.
    ConfigMap,
    /// Keys, and a type that says how they are meant.
    Secret,
    /// A token of a ServiceAccount: no object, but asked for. Its name says which: see [`super::token`].
    Token,
}

/// The name of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Which of the kinds.
    pub kind: ObjectKind,
    /// That of the pod: pods refer to objects of their own namespace only.
    pub namespace: String,
    /// As the pod names it.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    /// In the words of the kubelet's errors: `configmap "name"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ObjectKind::ConfigMap => "configmap",
            ObjectKind::Secret => "secret",
            ObjectKind::Token => return token::show(self, f),
        };
        write!(f, "{kind} {:?}", self.name)
    }
}

/// What a ConfigMap or Secret holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// By key, decoded from base64. Of a ConfigMap both `data` and `binaryData`.
    pub data: BTreeMap<String, Vec<u8>>,
    /// A Secret's type.
    pub type_: String,
}

/// Why it is not known what an object holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The API refuses to show the object, or shows what is no such object.
    #[error("{key}: {cause}")]
    Unreadable {
        /// The object asked for.
        key: ObjectKey,
        /// What the API said.
        cause: String,
    },
    /// The API was silent for as long as `limit`, and the object was never seen before.
    #[error("{key}: the API did not answer within {limit:?}")]
    NoAnswer {
        /// The object asked for.
        key: ObjectKey,
        /// How long the reader waited.
        limit: Duration,
    },
    /// The agent is shutting down.
    #[error("the watch has ended")]
    WatchEnded,
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing yet.
    Unread,
    /// There is none.
    Absent,
    /// What it holds.
    Present(Arc<Payload>),
    /// It cannot be known.
    Unreadable(ReadError),
}

impl From<Option<Arc<Payload>>> for Known {
    fn from(payload: Option<Arc<Payload>>) -> Self {
        payload.map_or(Self::Absent, Self::Present)
    }
}

/// An object that is watched as long as this is held.
pub struct Watched {
    known: watch::Receiver<Known>,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    /// The object as it is now, or as it was last known where the API is away; waits until it is clear which. `None`
    /// where there is none.
    pub async fn read(&self) -> Result<Option<Arc<Payload>>, ReadError> {
        let mut known = self.known.clone();
        let known = match known.wait_for(|known| *known != Known::Unread).await {
            Ok(known) => known.clone(),
            Err(_) => return Err(ReadError::WatchEnded),
        };
        match known {
            Known::Unread | Known::Absent => Ok(None),
            Known::Present(payload) => Ok(Some(payload)),
            Known::Unreadable(error) => Err(error),
        }
    }

    /// Resolves when [`Watched::read`] would give another answer.
    pub fn changes(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut known = self.known.clone();
        known.mark_unchanged();
        async move {
            if known.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// All that are watched. One watch serves all who need the same object.
pub struct Objects {
    client: Client,
    kept: Kept,
    watched: Mutex<HashMap<ObjectKey, Weak<Watched>>>,
}

impl Objects {
    /// Watches nothing yet. What is read is kept in `kept`.
    pub fn new(client: Client, kept: Kept) -> Self {
        Self { client, kept, watched: Mutex::default() }
    }

    /// Watches the object for as long as the answer is held.
    pub fn watch(&self, key: &ObjectKey) -> Arc<Watched> {
        let mut watched = self.watched.lock();
        if let Some(one) = watched.get(key).and_then(Weak::upgrade) {
            return one;
        }
        watched.retain(|_, one| one.strong_count() > 0);
        let (sender, known) = watch::channel(Known::Unread);
        let (client, kept, key_of_task) = (self.client.clone(), self.kept.clone(), key.clone());
        let task = match key.kind {
            ObjectKind::ConfigMap => {
                tokio::spawn(follow::<ConfigMap>(client, kept, key_of_task, sender, of_config_map))
            }
            ObjectKind::Secret => tokio::spawn(follow::<Secret>(client, kept, key_of_task, sender, of_secret)),
            ObjectKind::Token => tokio::spawn(token::follow(client, kept, key_of_task, sender)),
        };
        let one = Arc::new(Watched { known, task: task.abort_handle() });
        watched.insert(key.clone(), Arc::downgrade(&one));
        one
    }
}

async fn follow<K>(client: Client, kept: Kept, key: ObjectKey, known: watch::Sender<Known>, payload: fn(K) -> Payload)
where
    K: Object + Resource<Scope = k8s_openapi::NamespaceResourceScope>,
{
    let api = Api::<K>::namespaced(client, &key.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
    let mut changes = Events::new(&api, config);
    let publish = |now: Known| {
        known.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
    };
    let answer = |object: Option<K>| {
        let payload = object.map(|object| Arc::new(payload(object)));
        kept.insert_object(&key, payload.clone());
        publish(payload.into());
    };
    let mut listed = None;
    let mut has_answered = false;
    let patience = tokio::time::sleep(API_ANSWERS_WITHIN);
    tokio::pin!(patience);
    loop {
        let change = tokio::select! {
            change = changes.next() => change,
            () = &mut patience, if *known.borrow() == Known::Unread && kept.object(&key).is_some() => {
                kept.object(&key).into_iter().for_each(|last_known| publish(last_known.into()));
                continue;
            }
        };
        match change {
            None => return,
            Some(Ok(watcher::Event::Init)) => listed = None,
            Some(Ok(watcher::Event::InitApply(object))) => listed = Some(object),
            Some(Ok(watcher::Event::InitDone)) => {
                has_answered = true;
                answer(listed.take());
            }
            Some(Ok(watcher::Event::Apply(object))) => answer(Some(object)),
            Some(Ok(watcher::Event::Delete(_))) => answer(None),
            // The last version known serves while the API is away.
            Some(Err(_)) if has_answered || matches!(*known.borrow(), Known::Unreadable(_)) => {}
            Some(Err(error)) => {
                let last_known = kept.object(&key).filter(|_| kept::is_away(&error));
                let unreadable = || ReadError::Unreadable { key: key.clone(), cause: error.to_string() };
                publish(last_known.map_or_else(|| Known::Unreadable(unreadable()), Known::from));
            }
        }
    }
}

fn of_config_map(object: ConfigMap) -> Payload {
    let text = object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    let binary = object.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
    Payload { data: text.chain(binary).collect(), type_: String::new() }
}

fn of_secret(object: Secret) -> Payload {
    let data = object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    Payload { data, type_: object.type_.unwrap_or_default() }
}
