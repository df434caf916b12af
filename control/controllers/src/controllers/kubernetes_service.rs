//! Keeps the Service `default/kubernetes`, its Endpoints and its EndpointSlice as they must be, whoever changes them.

use std::sync::Arc;

use kube::Resource;

use super::{Context, RestoreService};
use crate::engine::{Failure, Informer, Key, Outcome, Startup, Tasks};

struct Controller {
    restore: RestoreService,
}

/// Starts the controller.
pub fn start(context: &Context, tasks: &Tasks) {
    let informers = &context.informers;
    let restore = context.config.kubernetes_service.clone();
    let startup = Startup::new("kubernetes-service", Controller { restore });
    let startup = on_own(startup, &informers.services);
    let startup = on_own(startup, &informers.endpoints);
    let startup = on_own(startup, &informers.endpoint_slices);
    // What was deleted before the first listing tells nobody.
    startup.queue().add(key());
    startup.start(tasks, 1, Controller::reconcile);
}

impl Controller {
    async fn reconcile(self: Arc<Self>, _: Key) -> Result<Outcome, Failure> {
        let restored = (self.restore)().await;
        let operation = "restore the Service default/kubernetes";
        restored.map(|()| Outcome::Done).map_err(|source| Failure::Request { operation, source })
    }
}

fn on_own<K: Resource + Send + Sync + 'static>(
    startup: Startup<Controller>,
    informer: &Informer<K>,
) -> Startup<Controller> {
    startup.on(informer, |_, change, queue| {
        if change.key == key() {
            queue.add(key());
        }
    })
}

/// The name of all three objects.
fn key() -> Key {
    Key::new("default", "kubernetes")
}
