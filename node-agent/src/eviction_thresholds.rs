//! The thresholds below which a resource counts as short, written as the kubelet's `--eviction-hard`.

use std::{fmt, str::FromStr};

/// Thresholds by signal. The default is the kubelet's, and 5 % of process ids, for which the kubelet has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvictionThresholds {
    /// Signal `memory.available`.
    pub memory_available: Threshold,
    /// Signal `nodefs.available`: the file system of the data directory.
    pub nodefs_available: Threshold,
    /// Signal `nodefs.inodesFree`.
    pub nodefs_inodes_free: Threshold,
    /// Signal `imagefs.available`: the file system of the runtime's images.
    pub imagefs_available: Threshold,
    /// Signal `imagefs.inodesFree`.
    pub imagefs_inodes_free: Threshold,
    /// Signal `pid.available`.
    pub pid_available: Threshold,
}

/// Less than this is a shortage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// Bytes, inodes or process ids. 0 is never short.
    Absolute(u64),
    /// Of the whole.
    Percent(u64),
}

impl Default for EvictionThresholds {
    fn default() -> Self {
        Self {
            memory_available: Threshold::Absolute(100 << 20),
            nodefs_available: Threshold::Percent(10),
            nodefs_inodes_free: Threshold::Percent(5),
            imagefs_available: Threshold::Percent(15),
            imagefs_inodes_free: Threshold::Percent(5),
            pid_available: Threshold::Percent(5),
        }
    }
}

impl Threshold {
    /// Whether `available` of `whole` is too little. A whole of 0 has no limit.
    pub fn is_crossed(self, available: u64, whole: u64) -> bool {
        match self {
            Self::Absolute(limit) => available < limit,
            Self::Percent(percent) => u128::from(available) * 100 < u128::from(whole) * u128::from(percent),
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(limit) if *limit >= 1 << 20 => write!(f, "{}Mi", limit >> 20),
            Self::Absolute(limit) => write!(f, "{limit}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Why the text is no list of thresholds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidThresholds {
    /// No `<` stands in it.
    #[error("{text:?} is not SIGNAL<LIMIT, such as nodefs.available<10%")]
    Form { text: String },
    /// No signal has this name.
    #[error(
        "{signal:?} is none of memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree and \
         pid.available"
    )]
    Signal { signal: String },
    /// Neither a percentage nor a quantity.
    #[error("{limit:?} is neither a percentage nor a number with Ki, Mi, Gi or Ti")]
    Limit { limit: String },
}

impl FromStr for EvictionThresholds {
    type Err = InvalidThresholds;

    /// `memory.available<100Mi,nodefs.available<10%`; signals that are not named keep their defaults.
    fn from_str(text: &str) -> Result<Self, InvalidThresholds> {
        let mut thresholds = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (signal, limit) =
                part.split_once('<').ok_or_else(|| InvalidThresholds::Form { text: part.to_owned() })?;
            *thresholds.of_signal(signal.trim())? = limit.trim().parse()?;
        }
        Ok(thresholds)
    }
}

impl EvictionThresholds {
    fn of_signal(&mut self, signal: &str) -> Result<&mut Threshold, InvalidThresholds> {
        Ok(match signal {
            "memory.available" => &mut self.memory_available,
            "nodefs.available" => &mut self.nodefs_available,
            "nodefs.inodesFree" => &mut self.nodefs_inodes_free,
            "imagefs.available" => &mut self.imagefs_available,
            "imagefs.inodesFree" => &mut self.imagefs_inodes_free,
            "pid.available" => &mut self.pid_available,
            _ => return Err(InvalidThresholds::Signal { signal: signal.to_owned() }),
        })
    }
}

impl FromStr for Threshold {
    type Err = InvalidThresholds;

    fn from_str(text: &str) -> Result<Self, InvalidThresholds> {
        let invalid = || InvalidThresholds::Limit { limit: text.to_owned() };
        if let Some(percent) = text.strip_suffix('%') {
            return percent.parse().ok().filter(|percent| *percent <= 100).map(Self::Percent).ok_or_else(invalid);
        }
        let units = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)];
        let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
        let (number, shift) = unit.unwrap_or((text, 0));
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(1 << shift).map(Self::Absolute).ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_signals_are_replaced_and_others_keep_their_defaults() {
        let thresholds: EvictionThresholds = "memory.available<1Gi, nodefs.available<0%".parse().unwrap();
        let expected = EvictionThresholds {
            memory_available: Threshold::Absolute(1 << 30),
            nodefs_available: Threshold::Percent(0),
            ..EvictionThresholds::default()
        };
        assert_eq!(thresholds, expected);
        assert_eq!("".parse(), Ok(EvictionThresholds::default()));
        assert_eq!(Threshold::Absolute(1 << 30).to_string(), "1024Mi");
    }

    #[test]
    fn what_is_no_threshold_is_refused() {
        let error = |text: &str| text.parse::<EvictionThresholds>().unwrap_err();
        assert!(matches!(error("nodefs.available"), InvalidThresholds::Form { .. }));
        assert!(matches!(error("disk<1%"), InvalidThresholds::Signal { .. }));
        for limit in ["101%", "-1%", "1X", "", "99999999999999999999", "99999999999Ti"] {
            let text = format!("nodefs.available<{limit}");
            assert_eq!(error(&text), InvalidThresholds::Limit { limit: limit.into() });
        }
    }
}
