//! Tests that share one cluster: started for the first that runs, taken down after the last.

use std::sync::{Arc, Mutex};

use libtest_mimic::{Failed, Trial};

use crate::kit::{Result, cluster::Cluster};

/// A test on a shared cluster, with its name.
pub type NamedTest = (&'static str, fn(&Cluster) -> Result);

/// A test with whatever cluster it makes itself, with its name.
pub type TestAlone = (&'static str, fn() -> Result);

pub struct Suite {
    name: &'static str,
    tests: &'static [NamedTest],
    start: fn() -> Result<Cluster>,
}

/// The shared cluster of one suite.
enum Shared {
    NotStarted,
    Running(Box<Cluster>),
    Failed(String),
}

impl Suite {
    pub fn new(name: &'static str, tests: &'static [NamedTest], start: fn() -> Result<Cluster>) -> Self {
        Self { name, tests, start }
    }

    /// One trial a test. A filter on the command line may leave out some: the cluster ends with the last reference to
    /// it.
    pub fn trials(self) -> Vec<Trial> {
        let shared = Arc::new(Mutex::new(Shared::NotStarted));
        let start = self.start;
        let trial = |(name, test): &NamedTest| {
            let (shared, test) = (shared.clone(), *test);
            Trial::test(format!("{}::{name}", self.name), move || {
                let mut shared = shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if let Shared::NotStarted = *shared {
                    *shared = match start() {
                        Ok(cluster) => Shared::Running(Box::new(cluster)),
                        Err(error) => Shared::Failed(error.to_string()),
                    };
                }
                match &*shared {
                    Shared::Running(cluster) => test(cluster).map_err(Failed::from),
                    Shared::Failed(error) => Err(Failed::from(format!("the cluster did not start: {error}"))),
                    Shared::NotStarted => Err(Failed::from("the cluster was not started")),
                }
            })
        };
        self.tests.iter().map(trial).collect()
    }
}
