//! What is made from all kinds together (discovery, OpenAPI), kept until the kinds change, or what else it is made
//! from.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::{Kinds, Registry};

/// A value made from all kinds. It is made when it is asked for and the kinds have changed since.
pub struct Derived<T> {
    registry: Registry,
    make: Box<dyn Fn(Arc<Kinds>) -> T + Send + Sync>,
    /// Changes with what else the value is made from.
    beside: Box<dyn Fn() -> u64 + Send + Sync>,
    kept: ArcSwapOption<DerivedValue<T>>,
    /// Held while the value is made, so that many who ask at once do not all make it.
    making: Mutex<()>,
}

struct DerivedValue<T> {
    generation: (u64, u64),
    value: Arc<T>,
}

impl<T> Derived<T> {
    /// `make` gets the kinds at one moment.
    pub fn new(registry: Registry, make: impl Fn(Arc<Kinds>) -> T + Send + Sync + 'static) -> Self {
        Self::beside(registry, || 0, make)
    }

    /// The same for a value that is also made from something whose generation `beside` tells.
    pub fn beside(
        registry: Registry,
        beside: impl Fn() -> u64 + Send + Sync + 'static,
        make: impl Fn(Arc<Kinds>) -> T + Send + Sync + 'static,
    ) -> Self {
        let (make, beside) = (Box::new(make), Box::new(beside));
        Self { registry, make, beside, kept: ArcSwapOption::empty(), making: Mutex::new(()) }
    }

    /// The value for the kinds as they are now.
    pub fn get(&self) -> Arc<T> {
        self.current().unwrap_or_else(|| {
            let _making = self.making.lock();
            self.current().unwrap_or_else(|| {
                // Asked before the value is made: a change meanwhile makes it anew.
                let beside = (self.beside)();
                let kinds = self.registry.snapshot();
                let generation = (kinds.generation(), beside);
                let value = Arc::new((self.make)(kinds));
                self.kept.store(Some(Arc::new(DerivedValue { generation, value: value.clone() })));
                value
            })
        })
    }

    fn current(&self) -> Option<Arc<T>> {
        let kept = self.kept.load();
        let kept = kept.as_ref()?;
        (kept.generation == (self.registry.snapshot().generation(), (self.beside)())).then(|| kept.value.clone())
    }
}
