//! Which parts of a bench are measured: those that `FAIRLEAD_BENCH_PARTS` names, separated by commas; all, unless it is
//! given.

use crate::kit::Result;

pub struct Parts(Vec<&'static str>);

impl Parts {
    /// Of the parts that there are.
    pub fn given(all: &[&'static str]) -> Result<Self> {
        let Ok(names) = std::env::var("FAIRLEAD_BENCH_PARTS") else { return Ok(Self(all.to_vec())) };
        let known = |name: &str| all.iter().find(|known| **known == name).copied();
        let found = names.split(',').map(|name| known(name).ok_or_else(|| no_part(name, all)));
        Ok(Self(found.collect::<std::result::Result<_, _>>()?))
    }

    pub fn measures(&self, part: &str) -> bool {
        self.0.contains(&part)
    }
}

fn no_part(name: &str, all: &[&str]) -> String {
    format!("no part of the bench is named {name}: there are {}", all.join(", "))
}
