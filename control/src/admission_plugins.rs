//! Which of Kubernetes' admission plugins are on: `--enable-admission-plugins` and `--disable-admission-plugins` name
//! those that are to be on beside, or not to be on among, the ones that are on by default.
//!
//! What each plugin does is written in `admission`; here are the names, their order, and which are on.
//!
//! Source: `AllOrderedPlugins` and `DefaultOffAdmissionPlugins` in `pkg/kubeapiserver/options/plugins.go`, and
//! `pkg/server/options/admission.go` of `k8s.io/apiserver`.

use std::{collections::BTreeSet, str::FromStr};

/// What becomes of a plugin that no flag names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    On,
    Off,
    /// It is not here, and nothing can switch it on.
    Unsupported {
        because: &'static str,
    },
}
use Standing::{Off, On, Unsupported};

/// The names and all that is known of them, in the order in which the plugins see a request.
macro_rules! plugins {
    ($($(#[$doc:meta])* $name:ident: $standing:expr,)*) => {
        /// A plugin of Kubernetes 1.35. One that is less sees a request before one that is greater.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum PluginName { $($(#[$doc])* $name,)* }

        const ALL: &[(PluginName, &str, Standing)] = &[$((PluginName::$name, stringify!($name), $standing),)*];
    };
}

plugins! {
    /// Does nothing.
    AlwaysAdmit: Off,
    /// Makes missing namespaces. In the midst of an admission that is decided from one state of the store, nothing is
    /// written here.
    NamespaceAutoProvision: Unsupported { because: "namespaces are not made by writes of other objects" },
    /// Whether a namespace takes new objects, and may be deleted.
    NamespaceLifecycle: On,
    /// Every write needs its namespace.
    NamespaceExists: Off,
    /// Required anti-affinity keeps pods apart by host alone.
    LimitPodHardAntiAffinityTopology: Off,
    /// What containers get, and between which amounts they stay.
    LimitRanger: On,
    /// The account of a pod, its pull secrets and its token.
    ServiceAccount: On,
    /// What the agent of a node may write. Off by default in Kubernetes, and on in every cluster of its.
    NodeRestriction: On,
    /// New nodes take no pods yet.
    TaintNodesByCondition: On,
    /// Images are pulled whenever a container starts.
    AlwaysPullImages: Off,
    /// Asks a program outside about images.
    ImagePolicyWebhook: Unsupported { because: "it needs a configuration file, and none is read" },
    /// Which pods the level of their namespace forbids.
    PodSecurity: On,
    /// The node selector that a namespace gives to its pods.
    PodNodeSelector: Off,
    /// The priority of a pod.
    Priority: On,
    /// For how long pods stay on a node that is lost.
    DefaultTolerationSeconds: On,
    /// The tolerations that a namespace gives and allows to its pods.
    PodTolerationRestriction: Off,
    /// Limits how many events are written.
    EventRateLimit: Unsupported { because: "it needs a configuration file, and none is read" },
    /// Pods tolerate the taints of the devices that they ask for.
    ExtendedResourceToleration: Off,
    /// The class of a claim.
    DefaultStorageClass: On,
    /// The finalizers of volumes, claims and VolumeAttributesClasses.
    StorageObjectInUseProtection: On,
    /// Who may name the owners of an object.
    OwnerReferencesPermissionEnforcement: Off,
    /// Whether claims grow.
    PersistentVolumeClaimResize: On,
    /// The overhead and the nodes of a RuntimeClass.
    RuntimeClass: On,
    /// Who approves for a signer.
    CertificateApproval: On,
    /// Who signs for a signer.
    CertificateSigning: On,
    /// Who attests for a signer. It does nothing: ClusterTrustBundles are not served.
    ClusterTrustBundleAttest: On,
    /// No client certificate makes an administrator.
    CertificateSubjectRestriction: On,
    /// The class of an Ingress.
    DefaultIngressClass: On,
    /// Services get no external addresses.
    DenyServiceExternalIPs: Off,
    /// A pod gets the topology labels of its node.
    PodTopologyLabels: On,
    /// What a node declares that it can. It does nothing, as in Kubernetes without the feature gate
    /// NodeDeclaredFeatures, which is not here.
    NodeDeclaredFeatureValidator: On,
    /// Evaluates MutatingAdmissionPolicies, where the feature gate of that name has them evaluated at all.
    MutatingAdmissionPolicy: On,
    /// Asks the webhooks that change objects.
    MutatingAdmissionWebhook: On,
    /// Evaluates ValidatingAdmissionPolicies.
    ValidatingAdmissionPolicy: On,
    /// Asks the webhooks that deny.
    ValidatingAdmissionWebhook: On,
    /// How much a namespace may hold.
    ResourceQuota: On,
    /// Denies everything.
    AlwaysDeny: Off,
}

/// What cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// No plugin of this name.
    #[error("admission plugin {name:?} is unknown; known are {known}", name = .0, known = every_name())]
    Unknown(String),
    /// These are to be on and off.
    #[error("{0} in enable-admission-plugins and disable-admission-plugins overlapped")]
    Overlapped(String),
    /// It is known, and not here.
    #[error("admission plugin {name} is not supported: {because}")]
    Unsupported {
        /// Which.
        name: &'static str,
        /// What is missing.
        because: &'static str,
    },
}

fn every_name() -> String {
    ALL.iter().map(|(_, name, _)| *name).collect::<Vec<_>>().join(", ")
}

impl PluginName {
    /// Each of them, in their order.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        ALL.iter().map(|(name, ..)| *name)
    }

    /// As flags and messages have it.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> &'static (Self, &'static str, Standing) {
        &ALL[self as usize]
    }
}

impl FromStr for PluginName {
    type Err = PluginError;

    fn from_str(text: &str) -> Result<Self, PluginError> {
        let found = ALL.iter().find(|(_, name, _)| *name == text);
        found.map(|(name, ..)| *name).ok_or_else(|| PluginError::Unknown(text.to_owned()))
    }
}

/// One value of a flag: names that commas separate. An empty one names nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginNames(Vec<PluginName>);

impl FromStr for PluginNames {
    type Err = PluginError;

    fn from_str(text: &str) -> Result<Self, PluginError> {
        let names = text.split(',').filter(|_| !text.is_empty());
        names.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// The plugins that are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionPlugins {
    on: BTreeSet<PluginName>,
}

impl Default for AdmissionPlugins {
    /// Those that are on by default.
    fn default() -> Self {
        Self { on: ALL.iter().filter(|(_, _, standing)| *standing == On).map(|(name, ..)| *name).collect() }
    }
}

impl AdmissionPlugins {
    /// What the values of both flags come to. To name a plugin that is on by default, or not to be on, changes nothing.
    pub fn of(enable: &[PluginNames], disable: &[PluginNames]) -> Result<Self, PluginError> {
        let all = |values: &[PluginNames]| values.iter().flat_map(|names| &names.0).copied().collect::<BTreeSet<_>>();
        let (enable, disable) = (all(enable), all(disable));
        let both: BTreeSet<&str> = enable.intersection(&disable).map(|name| name.as_str()).collect();
        if !both.is_empty() {
            let both: Vec<&str> = both.into_iter().collect();
            return Err(PluginError::Overlapped(format!("[{}]", both.join(" "))));
        }
        for name in &enable {
            if let (_, name, Unsupported { because }) = *name.row() {
                return Err(PluginError::Unsupported { name, because });
            }
        }
        let mut on = Self::default().on;
        on.retain(|name| !disable.contains(name));
        on.extend(enable);
        Ok(Self { on })
    }

    /// Whether the plugin is on.
    pub fn has(&self, name: PluginName) -> bool {
        self.on.contains(&name)
    }

    /// Tells the log of plugins that have no real meaning, as Kubernetes does.
    pub(crate) fn warn_of_deprecated(&self) {
        for name in [PluginName::AlwaysAdmit, PluginName::AlwaysDeny] {
            if self.has(name) {
                tracing::warn!(
                    "the admission plugin {} is deprecated: remove it from the configuration",
                    name.as_str()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugins(enable: &[&str], disable: &[&str]) -> Result<AdmissionPlugins, PluginError> {
        let all = |values: &[&str]| values.iter().map(|value| value.parse()).collect::<Result<Vec<PluginNames>, _>>();
        AdmissionPlugins::of(&all(enable)?, &all(disable)?)
    }

    #[test]
    fn flags_add_to_what_is_on_by_default_and_take_from_it() {
        let names = |plugins: &AdmissionPlugins| plugins.on.iter().map(|name| name.as_str()).collect::<Vec<_>>();
        let default = names(&AdmissionPlugins::default());
        // The 23 of Kubernetes, and NodeRestriction.
        assert_eq!(
            (default.len(), default.first(), default.last()),
            (24, Some(&"NamespaceLifecycle"), Some(&"ResourceQuota"))
        );
        assert_eq!(plugins(&[""], &[]), Ok(AdmissionPlugins::default()), "an empty value names nothing");
        assert_eq!(plugins(&["Priority"], &["AlwaysDeny"]), Ok(AdmissionPlugins::default()));
        let some = plugins(&["NamespaceExists,AlwaysPullImages", "AlwaysDeny"], &["Priority,ServiceAccount"]).unwrap();
        let some = names(&some);
        let added: Vec<&str> = some.iter().filter(|name| !default.contains(name)).copied().collect();
        assert_eq!(added, ["NamespaceExists", "AlwaysPullImages", "AlwaysDeny"], "in Kubernetes' order");
        let left: Vec<&str> = default.into_iter().filter(|name| !some.contains(name)).collect();
        assert_eq!(left, ["ServiceAccount", "Priority"]);
    }

    #[test]
    fn what_cannot_be_asked_for_is_told() {
        let told = |enable, disable| plugins(&[enable], &[disable]).unwrap_err().to_string();
        let unknown = told("Priorities", "");
        assert!(
            unknown.starts_with("admission plugin \"Priorities\" is unknown; known are AlwaysAdmit, Name"),
            "{unknown}"
        );
        assert!(told("", "Priority,").starts_with("admission plugin \"\" is unknown"));
        assert_eq!(
            told("ServiceAccount,Priority,AlwaysDeny", "Priority,ServiceAccount"),
            "[Priority ServiceAccount] in enable-admission-plugins and disable-admission-plugins overlapped"
        );
        for name in ["NamespaceAutoProvision", "ImagePolicyWebhook", "EventRateLimit"] {
            assert!(told(name, "").starts_with(&format!("admission plugin {name} is not supported: ")), "{name}");
            assert_eq!(plugins(&[], &[name]), Ok(AdmissionPlugins::default()), "{name} is off");
        }
    }

    /// A command line of kube-apiserver that names them starts.
    #[test]
    fn plugins_without_anything_to_do_may_be_named() {
        let names = "AlwaysAdmit,ClusterTrustBundleAttest,NodeDeclaredFeatureValidator";
        let on = plugins(&[names], &[]).unwrap();
        assert!(on.has(PluginName::ClusterTrustBundleAttest) && on.has(PluginName::NodeDeclaredFeatureValidator));
        let off = plugins(&[], &[names]).unwrap();
        assert!(!off.has(PluginName::ClusterTrustBundleAttest) && !off.has(PluginName::NodeDeclaredFeatureValidator));
    }
}
