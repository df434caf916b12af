//! The settings of the roles as flags, and how they become the parts' own configurations. No setting has a second name
//! elsewhere.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use anyhow::ensure;
use fairlead_control::{
    admission_plugins::{AdmissionPlugins, PluginNames},
    features::{Features, GateSetting, VersionSetting},
};
use fairlead_node_agent::config::{Access, DatapathChoice, EvictionThresholds, ImageGcPolicy};
use ipnetwork::Ipv4Network;

use super::{
    access_flags::{AuthenticationArgs, AuthorizationArgs},
    audit_flags::AuditArgs,
    flag_values::{parse_bool, parse_duration, parse_port_range},
};

/// Settings of every role.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonArgs {
    /// Holds all state
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_DATA_DIR", default_value = crate::cluster::DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
    /// How the log on standard error is written: lines for people, or one JSON object per line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// YAML file with the same settings: its keys are the names of these flags
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
}

/// How a role writes its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What control service and nodes must agree on.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Cluster network")]
pub struct ClusterArgs {
    /// ClusterIPs of Services come from here [default: 10.96.0.0/12]
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<Ipv4Network>,
    /// Pods of all nodes come from here [default: 10.244.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub cluster_cidr: Option<Ipv4Network>,
    /// ClusterIP of the cluster's DNS [default: the tenth of --service-cidr]
    #[arg(long, value_name = "IP")]
    pub cluster_dns: Option<Ipv4Addr>,
    /// DNS suffix of the cluster [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
}

/// Settings of the control service alone.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Control service")]
pub struct ControlArgs {
    /// Where the API is served [default: 0.0.0.0:6443]
    #[arg(long, value_name = "IP:PORT")]
    pub bind: Option<SocketAddr>,
    /// Address that nodes and clients use; may be given more than once [default: that of the default route]
    #[arg(long, value_name = "IP", value_delimiter = ',', action = clap::ArgAction::Append)]
    pub advertise: Vec<IpAddr>,
    /// Prefix length of one node's pod subnet [default: 24]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(1..=30))]
    pub node_cidr_mask_size: Option<u8>,
    /// NodePorts lie in this range [default: 30000-32767]
    #[arg(long, value_name = "FROM-TO", value_parser = parse_port_range)]
    pub service_node_port_range: Option<RangeInclusive<u16>>,
    /// How long a node may be silent before it is NotReady [default: 40s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub node_monitor_grace_period: Option<Duration>,
    /// Requests wait for their turn in priority levels (FlowSchemas, PriorityLevelConfigurations); false: what comes
    /// beyond the two limits is refused at once [default: true]
    #[arg(long, value_name = "BOOL", value_parser = parse_bool)]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub enable_priority_and_fairness: Option<bool>,
    /// Together with --max-mutating-requests-inflight how many requests are handled at a time, which must be more than
    /// 0; with --enable-priority-and-fairness=false how many that read, 0 for no limit [default: 400]
    #[arg(long, value_name = "COUNT")]
    pub max_requests_inflight: Option<usize>,
    /// Together with --max-requests-inflight how many requests are handled at a time, which must be more than 0; with
    /// --enable-priority-and-fairness=false how many that write, 0 for no limit [default: 200]
    #[arg(long, value_name = "COUNT")]
    pub max_mutating_requests_inflight: Option<usize>,
    /// Versions of the API that are served only where they are asked for, such as
    /// admissionregistration.k8s.io/v1beta1=true or api/beta=true
    #[arg(long, value_name = "VERSION=BOOL", value_delimiter = ',', action = clap::ArgAction::Append)]
    pub runtime_config: Vec<VersionSetting>,
    /// Features that are off unless they are asked for, such as MutatingAdmissionPolicy=true
    #[arg(long, value_name = "GATE=BOOL", value_delimiter = ',', action = clap::ArgAction::Append)]
    pub feature_gates: Vec<GateSetting>,
    /// Admission plugins that are on beside those that are on by default, such as AlwaysPullImages; may be given more
    /// than once
    #[arg(long, value_name = "PLUGIN,...", action = clap::ArgAction::Append)]
    pub enable_admission_plugins: Vec<PluginNames>,
    /// Admission plugins that are off although they are on by default; may be given more than once
    #[arg(long, value_name = "PLUGIN,...", action = clap::ArgAction::Append)]
    pub disable_admission_plugins: Vec<PluginNames>,
    /// Start although the store has lost texts that many objects share, or keys that decrypt objects: those objects are
    /// kept aside, and controllers may delete what belongs to them
    #[arg(long, value_name = "BOOL", value_parser = parse_bool)]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub quarantine_damaged_objects: Option<bool>,
    /// EncryptionConfiguration (apiserver.config.k8s.io/v1) that says which objects are encrypted at rest
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Watch the file of --encryption-provider-config, and use it as it changes
    #[arg(long, value_name = "BOOL", value_parser = parse_bool)]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub encryption_provider_config_automatic_reload: Option<bool>,
    #[command(flatten)]
    pub audit: AuditArgs,
    #[command(flatten)]
    pub authentication: AuthenticationArgs,
    #[command(flatten)]
    pub authorization: AuthorizationArgs,
}

/// Settings of a control service that runs without a node.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Control service")]
pub struct ServerArgs {
    /// Serve the API without controllers and scheduler, for others such as kube-controller-manager to run them
    #[arg(long, value_name = "BOOL", value_parser = parse_bool)]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub api_only: Option<bool>,
}

/// Settings of a node alone.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Node")]
pub struct NodeArgs {
    /// Name of the Node object [default: this host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of this node [default: that of the interface with the default route]
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<Ipv4Addr>,
    /// Docker Engine that runs the containers
    #[arg(long, value_name = "URL", env = "DOCKER_HOST", default_value = "unix:///var/run/docker.sock")]
    pub docker_host: String,
    /// What carries Services: the kernel, a process, or the best that works here
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    pub datapath: Datapath,
    /// cgroup2 directory where the socket hooks attach [default: the root]
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Directory on a bpffs where programs and maps stay while the agent is away [default: /sys/fs/bpf/fairlead]
    #[arg(long, value_name = "DIR")]
    pub bpf_pins: Option<PathBuf>,
    /// Port of the agent's HTTPS server: logs, exec, attach, port-forward, inspect, health, metrics [default: 10250]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Pods that this node takes at the most [default: 110]
    #[arg(long, value_name = "COUNT")]
    pub max_pods: Option<u32>,
    /// The host's resolvers, for names outside the cluster [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,
    /// Shortages that the node's conditions tell, such as nodefs.available<10%,memory.available<100Mi [default: the
    /// kubelet's]
    #[arg(long, value_name = "SIGNAL<LIMIT,...")]
    pub eviction_hard: Option<EvictionThresholds>,
    /// Percent of the images' file system in use from which on unused images that were pulled for pods are removed; 100
    /// keeps them [default: 85]
    #[arg(long, value_name = "PERCENT")]
    pub image_gc_high_threshold: Option<u8>,
    /// Percent down to which unused images are removed [default: 80]
    #[arg(long, value_name = "PERCENT")]
    pub image_gc_low_threshold: Option<u8>,
    /// Time for which an unused image is kept after it was first seen [default: 2m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub image_minimum_gc_age: Option<Duration>,
    /// Time after which an unused image is removed however much is free; 0 never [default: 0]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub image_maximum_gc_age: Option<Duration>,
}

/// What carries Services on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Datapath {
    Ebpf,
    Userspace,
    Auto,
}

impl ClusterArgs {
    /// The address of the cluster's DNS: as given, else the tenth address of a service range that was given.
    fn dns(&self) -> Option<Ipv4Addr> {
        self.cluster_dns.or_else(|| self.service_cidr.and_then(|range| range.nth(10)))
    }

    /// Fills in the defaults, and refuses ranges that overlap and a DNS address outside the range of Services.
    pub fn network(&self) -> anyhow::Result<ClusterNetwork> {
        let defaults = fairlead_control::Config::new("");
        let services = self.service_cidr.unwrap_or(defaults.service_cidr);
        let pods = self.cluster_cidr.unwrap_or(defaults.cluster_cidr);
        ensure!(
            !services.contains(pods.network()) && !pods.contains(services.network()),
            "--service-cidr {services} and --cluster-cidr {pods} overlap: Services and pods need ranges of their own"
        );
        let dns = self.dns().unwrap_or(defaults.cluster_dns);
        ensure!(services.contains(dns), "--cluster-dns {dns} does not lie in --service-cidr {services}");
        let domain = self.cluster_domain.clone().unwrap_or(defaults.cluster_domain);
        Ok(ClusterNetwork { services, pods, dns, domain })
    }
}

/// The network of a cluster, checked: the ranges do not overlap, and the DNS address is one of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNetwork {
    services: Ipv4Network,
    pods: Ipv4Network,
    dns: Ipv4Addr,
    domain: String,
}

/// The control service's configuration.
pub fn control(
    common: &CommonArgs,
    network: &ClusterNetwork,
    args: &ControlArgs,
) -> anyhow::Result<fairlead_control::Config> {
    let mut config = fairlead_control::Config::new(&common.data_dir);
    let set = args.clone();
    config.bind = set.bind.unwrap_or(config.bind);
    config.advertise = set.advertise;
    config.node_cidr_mask_size = set.node_cidr_mask_size.unwrap_or(config.node_cidr_mask_size);
    config.service_node_port_range = set.service_node_port_range.unwrap_or(config.service_node_port_range);
    config.node_monitor_grace_period = set.node_monitor_grace_period.unwrap_or(config.node_monitor_grace_period);
    config.enable_priority_and_fairness =
        set.enable_priority_and_fairness.unwrap_or(config.enable_priority_and_fairness);
    config.max_requests_inflight = set.max_requests_inflight.unwrap_or(config.max_requests_inflight);
    config.max_mutating_requests_inflight =
        set.max_mutating_requests_inflight.unwrap_or(config.max_mutating_requests_inflight);
    config.features = Features::of(&set.runtime_config, &set.feature_gates)?;
    config.admission_plugins = AdmissionPlugins::of(&set.enable_admission_plugins, &set.disable_admission_plugins)?;
    config.quarantine_damaged_objects = set.quarantine_damaged_objects.unwrap_or_default();
    config.encryption_provider_config = set.encryption_provider_config;
    config.encryption_provider_config_automatic_reload =
        set.encryption_provider_config_automatic_reload.unwrap_or_default();
    ensure!(
        config.encryption_provider_config.is_some() || !config.encryption_provider_config_automatic_reload,
        "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config"
    );
    config.audit = set.audit.options()?;
    config.authentication = set.authentication.options();
    config.authorization = set.authorization.options();
    config.service_cidr = network.services;
    config.cluster_cidr = network.pods;
    config.cluster_dns = network.dns;
    config.cluster_domain = network.domain.clone();
    ensure!(
        config.node_cidr_mask_size >= config.cluster_cidr.prefix(),
        "--node-cidr-mask-size {} leaves no room for nodes in --cluster-cidr {}",
        config.node_cidr_mask_size,
        config.cluster_cidr
    );
    Ok(config)
}

/// The node agent's configuration.
pub fn agent(
    common: &CommonArgs,
    network: &ClusterNetwork,
    args: &NodeArgs,
    access: Access,
) -> anyhow::Result<fairlead_node_agent::Config> {
    let set = args.clone();
    let name = match set.node_name {
        Some(name) => name,
        None => host_name()?,
    };
    let mut config = fairlead_node_agent::Config::new(name, &common.data_dir, access);
    config.node_ip = set.node_ip;
    config.docker_host = set.docker_host;
    config.datapath = match set.datapath {
        Datapath::Ebpf => DatapathChoice::Ebpf,
        Datapath::Userspace => DatapathChoice::Userspace,
        Datapath::Auto => DatapathChoice::Auto,
    };
    config.cgroup = set.cgroup;
    config.bpf_pins = set.bpf_pins.unwrap_or(config.bpf_pins);
    config.port = set.port.unwrap_or(config.port);
    config.max_pods = set.max_pods.unwrap_or(config.max_pods);
    config.resolv_conf = set.resolv_conf.unwrap_or(config.resolv_conf);
    config.service_cidr = network.services;
    config.cluster_cidr = network.pods;
    config.cluster_dns = network.dns;
    config.cluster_domain = network.domain.clone();
    config.eviction_hard = set.eviction_hard.unwrap_or(config.eviction_hard);
    let images = config.image_gc;
    config.image_gc = ImageGcPolicy {
        high_threshold_percent: set.image_gc_high_threshold.unwrap_or(images.high_threshold_percent),
        low_threshold_percent: set.image_gc_low_threshold.unwrap_or(images.low_threshold_percent),
        minimum_age: set.image_minimum_gc_age.unwrap_or(images.minimum_age),
        maximum_age: set.image_maximum_gc_age.unwrap_or(images.maximum_age),
    };
    config.image_gc.validate()?;
    Ok(config)
}

/// The host's name as a Node's name may be: lower case.
fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname()?;
    Ok(name.to_string_lossy().to_lowercase())
}

#[cfg(test)]
mod tests {
    use fairlead_control::admission_plugins::PluginName;

    use super::*;

    #[test]
    fn admission_plugins_are_lists_that_may_be_given_more_than_once() {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            control: ControlArgs,
        }
        let plugins = |words: &[&str]| -> anyhow::Result<AdmissionPlugins> {
            let flags = <Flags as clap::Parser>::try_parse_from([&["fairlead"][..], words].concat())?.control;
            Ok(AdmissionPlugins::of(&flags.enable_admission_plugins, &flags.disable_admission_plugins)?)
        };
        let told = |words: &[&str]| plugins(words).map_err(|error| error.to_string());
        let more = "--enable-admission-plugins=AlwaysPullImages,NamespaceExists";
        let given = told(&[more, "--disable-admission-plugins", "Priority", "--enable-admission-plugins="]).unwrap();
        let on =
            [PluginName::AlwaysPullImages, PluginName::NamespaceExists, PluginName::Priority].map(|p| given.has(p));
        assert_eq!(on, [true, true, false]);
        assert_eq!(told(&[]), Ok(AdmissionPlugins::default()));
        assert!(told(&["--enable-admission-plugins=A"]).unwrap_err().contains("admission plugin \"A\" is unknown"));
        let both = told(&[more, "--disable-admission-plugins=NamespaceExists"]).unwrap_err();
        assert!(both.starts_with("[NamespaceExists] in enable-admission-plugins and"), "{both}");
    }

    /// Every role's flags.
    #[derive(clap::Parser)]
    struct EveryFlag {
        #[command(flatten)]
        _common: CommonArgs,
        #[command(flatten)]
        _cluster: ClusterArgs,
        #[command(flatten)]
        _control: ControlArgs,
        #[command(flatten)]
        _server: ServerArgs,
        #[command(flatten)]
        _node: NodeArgs,
    }

    #[test]
    fn every_flag_that_is_true_or_false_is_written_as_for_kube_apiserver() {
        let verb = <EveryFlag as clap::CommandFactory>::command();
        let mut names = Vec::new();
        for arg in verb.get_arguments() {
            let Some(name) = arg.get_long().filter(|name| !matches!(*name, "help" | "version")) else { continue };
            assert!(arg.get_action().takes_values(), "--{name} takes no =false");
            let Ok(matches) = verb.clone().try_get_matches_from(["verb", &format!("--{name}")]) else { continue };
            let value = |matches: &clap::ArgMatches| *matches.get_one::<bool>(arg.get_id().as_str()).unwrap();
            assert!(value(&matches), "--{name}");
            let given = |word: &str| verb.clone().try_get_matches_from(["verb", &format!("--{name}={word}")]);
            for (word, is_on) in [("true", true), ("True", true), ("1", true), ("false", false), ("0", false)] {
                assert_eq!(value(&given(word).unwrap()), is_on, "--{name}={word}");
            }
            let told = given("yes").unwrap_err().to_string();
            assert!(told.contains("it is true or false"), "{told}");
            let next_word = verb.clone().try_get_matches_from(["verb", &format!("--{name}"), "false"]);
            assert!(next_word.is_err(), "--{name} takes no word behind it");
            names.push(name.to_owned());
        }
        names.sort();
        assert_eq!(
            names,
            [
                "anonymous-auth",
                "api-only",
                "audit-log-compress",
                "audit-log-truncate-enabled",
                "audit-webhook-batch-throttle-enable",
                "audit-webhook-truncate-enabled",
                "enable-priority-and-fairness",
                "encryption-provider-config-automatic-reload",
                "quarantine-damaged-objects",
            ]
        );
    }

    #[test]
    fn the_cluster_dns_follows_the_service_range() {
        let args = ClusterArgs {
            service_cidr: "10.50.0.0/16".parse().ok(),
            cluster_cidr: None,
            cluster_dns: None,
            cluster_domain: None,
        };
        assert_eq!(args.dns(), Some(Ipv4Addr::new(10, 50, 0, 10)));
        assert!(args.network().is_ok());
    }

    #[test]
    fn overlapping_ranges_are_refused() {
        let args = ClusterArgs {
            service_cidr: None,
            cluster_cidr: "10.96.0.0/16".parse().ok(),
            cluster_dns: None,
            cluster_domain: None,
        };
        assert!(args.network().is_err());
    }
}
