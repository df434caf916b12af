//! What the labels `pod-security.kubernetes.io/…` of a namespace mean.

use std::fmt;

use serde_json::json;

use crate::kinds::FieldError;

/// How the keys of the labels begin.
pub const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may do, from everything to least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    #[default]
    Privileged,
    /// What is not known to lead out of the pod.
    Baseline,
    /// What is current practice of hardening.
    Restricted,
}

/// The version of Kubernetes that says what a level means. The latest is the greatest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyVersion {
    /// `v1.MINOR`
    Minor(u64),
    /// `latest`
    #[default]
    Latest,
}

/// A level as a version defined it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelVersion {
    /// The level.
    pub level: Level,
    /// Whose definition of it counts.
    pub version: PolicyVersion,
}

/// What holds in a namespace. Without labels nothing is forbidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceLevels {
    /// Pods that violate it are refused.
    pub enforce: LevelVersion,
    /// Pods that violate it are noted.
    pub audit: LevelVersion,
    /// Who sends pods that violate it is warned.
    pub warn: LevelVersion,
}

impl NamespaceLevels {
    /// Reads labels sorted by key, with what is wrong with them. A wrong label means the strictest to what is enforced,
    /// and nothing to the rest.
    pub fn of_labels(labels: &[(&str, &str)]) -> (Self, Vec<FieldError>) {
        let (mut policy, mut errors) = (Self::default(), Vec::new());
        let from = labels.partition_point(|(key, _)| *key < PREFIX);
        let own: Vec<(&str, &str)> =
            labels[from..].iter().map_while(|(key, value)| Some((key.strip_prefix(PREFIX)?, *value))).collect();
        if own.is_empty() {
            return (policy, errors);
        }
        let value = |mode: &str| own.iter().find(|(key, _)| *key == mode).map(|(_, value)| *value);
        let mut wrong = |mode: &str, value: &str, why: &str| {
            errors.push(FieldError::invalid(format!("metadata.labels[{PREFIX}{mode}]"), &json!(value), why));
        };
        let mut enforced = None;
        for (mode, version_of, of, otherwise) in [
            ("enforce", "enforce-version", &mut policy.enforce, Level::Restricted),
            ("audit", "audit-version", &mut policy.audit, Level::Privileged),
            ("warn", "warn-version", &mut policy.warn, Level::Privileged),
        ] {
            if let Some(said) = value(mode) {
                of.level = Level::parse(said).unwrap_or_else(|| {
                    wrong(mode, said, "must be one of privileged, baseline, restricted");
                    otherwise
                });
                if mode == "enforce" {
                    enforced = Level::parse(said);
                }
            }
            if let Some(said) = value(version_of) {
                of.version = PolicyVersion::parse(said).unwrap_or_else(|| {
                    wrong(version_of, said, "must be \"latest\" or \"v1.x\"");
                    PolicyVersion::Latest
                });
            }
        }
        // Who enforces a level wants to be warned by templates as well.
        if let Some(level) = enforced.filter(|level| value("warn").is_none() && *level > policy.warn.level) {
            policy.warn.level = level;
            if value("warn-version").is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    /// Whether nothing is checked.
    pub fn is_fully_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|mode| mode.is_privileged())
    }
}

impl LevelVersion {
    /// Whether everything is allowed.
    pub fn is_privileged(self) -> bool {
        self.level == Level::Privileged
    }
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        [Self::Privileged, Self::Baseline, Self::Restricted].into_iter().find(|level| level.name() == text)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

impl PolicyVersion {
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor.bytes().all(|digit| digit.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        minor.parse().ok().filter(|_| plain).map(Self::Minor)
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            PolicyVersion::Latest => write!(f, "{}:latest", self.level.name()),
            PolicyVersion::Minor(minor) => write!(f, "{}:v1.{minor}", self.level.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[(&str, &str)]) -> (String, Vec<String>) {
        let mut labels: Vec<(String, String)> =
            labels.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect();
        labels.extend([("a".to_owned(), "b".to_owned()), ("z".to_owned(), "b".to_owned())]);
        labels.sort();
        let (policy, errors) =
            NamespaceLevels::of_labels(&labels.iter().map(|(key, value)| (&**key, &**value)).collect::<Vec<_>>());
        let text = format!("{} {} {}", policy.enforce, policy.audit, policy.warn);
        (text, errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect())
    }

    #[test]
    fn labels_say_what_is_enforced_noted_and_told() {
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[], "privileged:latest privileged:latest privileged:latest"),
            (&[("enforce", "baseline")], "baseline:latest privileged:latest baseline:latest"),
            (
                &[("enforce", "restricted"), ("enforce-version", "v1.25")],
                "restricted:v1.25 privileged:latest restricted:v1.25",
            ),
            (
                &[("enforce", "restricted"), ("enforce-version", "v1.25"), ("warn-version", "v1.0")],
                "restricted:v1.25 privileged:latest restricted:v1.0",
            ),
            (
                &[("enforce", "restricted"), ("warn", "privileged")],
                "restricted:latest privileged:latest privileged:latest",
            ),
            (&[("audit", "baseline"), ("warn", "restricted")], "privileged:latest baseline:latest restricted:latest"),
        ];
        for (labels, expected) in cases {
            assert_eq!(of(labels), (expected.to_owned(), Vec::new()), "{labels:?}");
        }
    }

    #[test]
    fn a_wrong_label_is_strict_where_it_is_enforced() {
        let (policy, errors) =
            of(&[("enforce", "x"), ("audit", "x"), ("warn-version", "1.2"), ("audit-version", "v1.01")]);
        assert_eq!(policy, "restricted:latest privileged:latest privileged:latest");
        assert_eq!(
            errors,
            [
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"x\": must be one of privileged, \
                baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: \"x\": must be one of privileged, \
                baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"v1.01\": must be \"latest\" \
                or \"v1.x\"",
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"1.2\": must be \"latest\" or \
                \"v1.x\"",
            ]
        );
        assert!(PolicyVersion::Minor(u64::MAX) < PolicyVersion::Latest);
    }
}
