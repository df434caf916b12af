//! What is served and evaluated only where it is asked for, as in Kubernetes: `--runtime-config` names the versions of
//! the API, `--feature-gates` the features.
//!
//! Both are lists of `KEY=BOOL`; the later of two for one key counts, and a narrower key over a wider one.

use std::{collections::BTreeMap, str::FromStr};

use crate::kinds::{
    AddError, BuiltIn, Kind, Kinds, Registry,
    admissionregistration::{ALPHA, BETA},
    api_version::group_and_version,
};

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Whether `admissionregistration.k8s.io/v1beta1` is served.
    beta: bool,
    /// Whether `admissionregistration.k8s.io/v1alpha1` is served, too.
    alpha: bool,
    /// Whether mutating policies are evaluated.
    mutating_admission_policy: bool,
}

/// One entry of `--runtime-config`: `api/beta=true`, `admissionregistration.k8s.io/v1beta1=true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionSetting {
    key: String,
    on: bool,
}

/// One entry of `--feature-gates`: `MutatingAdmissionPolicy=true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSetting {
    gate: String,
    on: bool,
}

/// What cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// Neither a version that is served, nor one that could be, nor a group of them.
    #[error(
        "unknown api version {0:?}: known are api/all, api/beta, api/alpha, admissionregistration.k8s.io/v1beta1 and its v1alpha1"
    )]
    UnknownVersion(String),
    /// A version that is always served.
    #[error("{0} is always served, and cannot be switched off")]
    AlwaysServed(String),
    /// No gate of this name.
    #[error("unrecognized feature gate: {0}; known are MutatingAdmissionPolicy, AllAlpha and AllBeta")]
    UnknownGate(String),
    /// Nothing is said of a gate.
    #[error("missing bool value for {0}")]
    NoValue(String),
    /// Neither true nor false.
    #[error("invalid value of {key}={value}: true or false is expected")]
    NotBool {
        /// Of which.
        key: String,
        /// What was given.
        value: String,
    },
    /// Objects of the one are stored as those of the other.
    #[error(
        "admissionregistration.k8s.io/v1alpha1 is served only beside v1beta1: set \
         --runtime-config=admissionregistration.k8s.io/v1beta1=true as well"
    )]
    AlphaAlone,
    /// There would be nothing to evaluate.
    #[error(
        "the feature gate MutatingAdmissionPolicy needs its kinds: set \
         --runtime-config=admissionregistration.k8s.io/v1beta1=true as well"
    )]
    GateWithoutKinds,
}

const BETA_VERSION: &str = "admissionregistration.k8s.io/v1beta1";
const ALPHA_VERSION: &str = "admissionregistration.k8s.io/v1alpha1";
/// From the widest to the narrowest.
const WIDE: [&str; 4] = ["api/all", "api/ga", "api/beta", "api/alpha"];

impl Features {
    /// What the entries of both flags come to.
    pub fn of(versions: &[VersionSetting], gates: &[GateSetting]) -> Result<Self, FeatureError> {
        let said: BTreeMap<&str, bool> = versions.iter().map(|setting| (setting.key.as_str(), setting.on)).collect();
        let is_on = |keys: [&str; 3]| keys.iter().find_map(|key| said.get(key)).copied().unwrap_or(false);
        let beta = is_on([BETA_VERSION, "api/beta", "api/all"]);
        let alpha = is_on([ALPHA_VERSION, "api/alpha", "api/all"]);
        let gates: BTreeMap<&str, bool> = gates.iter().map(|setting| (setting.gate.as_str(), setting.on)).collect();
        let gate = gates.get("MutatingAdmissionPolicy").or_else(|| gates.get("AllBeta"));
        let mutating_admission_policy = gate.copied().unwrap_or(false);
        match (alpha && !beta, mutating_admission_policy && !beta) {
            (true, _) => Err(FeatureError::AlphaAlone),
            (_, true) => Err(FeatureError::GateWithoutKinds),
            _ => Ok(Self { beta, alpha, mutating_admission_policy }),
        }
    }

    /// Adds the kinds that were asked for to those that are always served.
    pub(crate) fn serve(&self, kinds: &Registry) -> Result<(), AddError> {
        let asked: [(bool, [&'static BuiltIn; 2]); 2] = [(self.beta, BETA), (self.alpha, ALPHA)];
        for kind in asked.into_iter().filter(|(on, _)| *on).flat_map(|(_, kinds)| kinds) {
            kinds.add(Kind::from(kind))?;
        }
        Ok(())
    }

    /// Whether mutating policies are evaluated.
    pub(crate) fn evaluates_mutating_policies(&self) -> bool {
        self.mutating_admission_policy
    }
}

impl FromStr for VersionSetting {
    type Err = FeatureError;

    fn from_str(text: &str) -> Result<Self, FeatureError> {
        let (key, value) = text.split_once('=').unwrap_or((text, "true"));
        let key = key.trim();
        // A key alone switches on.
        let on = if value.is_empty() { true } else { read_bool(key, value)? };
        let (group, version) = group_and_version(key);
        let is_served = Kinds::built_in().serves_version(group, version);
        match WIDE.contains(&key) || key == BETA_VERSION || key == ALPHA_VERSION {
            true if matches!(key, "api/all" | "api/ga") && !on => Err(FeatureError::AlwaysServed(key.to_owned())),
            false if is_served && !on => Err(FeatureError::AlwaysServed(key.to_owned())),
            false if !is_served => Err(FeatureError::UnknownVersion(key.to_owned())),
            _ => Ok(Self { key: key.to_owned(), on }),
        }
    }
}

impl FromStr for GateSetting {
    type Err = FeatureError;

    fn from_str(text: &str) -> Result<Self, FeatureError> {
        let Some((gate, value)) = text.split_once('=') else { return Err(FeatureError::NoValue(text.to_owned())) };
        let gate = gate.trim();
        if !["MutatingAdmissionPolicy", "AllAlpha", "AllBeta"].contains(&gate) {
            return Err(FeatureError::UnknownGate(gate.to_owned()));
        }
        Ok(Self { gate: gate.to_owned(), on: read_bool(gate, value)? })
    }
}

/// As Go reads a bool.
fn read_bool(key: &str, value: &str) -> Result<bool, FeatureError> {
    match value.trim() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        value => Err(FeatureError::NotBool { key: key.to_owned(), value: value.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(versions: &str, gates: &str) -> Result<Features, FeatureError> {
        let parts = |text: &'static str| text.split(',').filter(|part| !part.is_empty());
        let (versions, gates) = (versions.to_owned().leak(), gates.to_owned().leak());
        let versions: Result<Vec<VersionSetting>, _> = parts(versions).map(str::parse).collect();
        let gates: Result<Vec<GateSetting>, _> = parts(gates).map(str::parse).collect();
        Features::of(&versions?, &gates?)
    }

    /// Beta, alpha, and whether policies are evaluated.
    fn on(versions: &str, gates: &str) -> (bool, bool, bool) {
        let Features { beta, alpha, mutating_admission_policy } = features(versions, gates).unwrap();
        (beta, alpha, mutating_admission_policy)
    }

    #[test]
    fn nothing_is_served_or_evaluated_unless_it_is_asked_for() {
        assert_eq!(on("", ""), (false, false, false));
        assert_eq!(on("admissionregistration.k8s.io/v1beta1=true", ""), (true, false, false));
        assert_eq!(on("admissionregistration.k8s.io/v1beta1", "MutatingAdmissionPolicy=true"), (true, false, true));
        assert_eq!(on("api/beta=1,apps/v1=true,v1=true", "AllBeta=T,AllAlpha=true"), (true, false, true));
        assert_eq!(on("api/all=true", "AllBeta=true,MutatingAdmissionPolicy=false"), (true, true, false));
        assert_eq!(on("admissionregistration.k8s.io/v1alpha1=false,api/all=true", ""), (true, false, false));
        assert_eq!(on("api/beta=true,api/beta=false", ""), (false, false, false), "the later one counts");
    }

    #[test]
    fn what_cannot_be_asked_for_is_told() {
        for (versions, gates, why) in [
            ("apps/v1=false", "", "apps/v1 is always served"),
            ("api/all=false", "", "api/all is always served"),
            ("apps/v3=true", "", "unknown api version \"apps/v3\""),
            ("api/beta=maybe", "", "invalid value of api/beta=maybe"),
            ("", "Unknown=true", "unrecognized feature gate: Unknown"),
            ("", "MutatingAdmissionPolicy", "missing bool value"),
            ("", "MutatingAdmissionPolicy=x", "invalid value of MutatingAdmissionPolicy=x"),
            ("", "MutatingAdmissionPolicy=true", "needs its kinds"),
            ("admissionregistration.k8s.io/v1alpha1=true", "", "only beside"),
        ] {
            let told = features(versions, gates).unwrap_err().to_string();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn kinds_that_are_asked_for_are_served_after_those_of_their_group() {
        let kinds = Registry::default();
        Features::default().serve(&kinds).unwrap();
        assert!(!kinds.snapshot().serves_version("admissionregistration.k8s.io", "v1beta1"));
        features("api/all=true", "").unwrap().serve(&kinds).unwrap();
        let served: Vec<String> = kinds
            .snapshot()
            .iter()
            .filter(|kind| kind.group == "admissionregistration.k8s.io" && kind.version != "v1")
            .map(|kind| format!("{}/{} {} {:?}", kind.version, kind.plural, kind.singular, kind.categories))
            .collect();
        assert_eq!(
            served,
            [
                "v1beta1/mutatingadmissionpolicies mutatingadmissionpolicy [\"api-extensions\"]",
                "v1beta1/mutatingadmissionpolicybindings mutatingadmissionpolicybinding [\"api-extensions\"]",
                "v1alpha1/mutatingadmissionpolicies mutatingadmissionpolicy [\"api-extensions\"]",
                "v1alpha1/mutatingadmissionpolicybindings mutatingadmissionpolicybinding [\"api-extensions\"]",
            ]
        );
    }
}
