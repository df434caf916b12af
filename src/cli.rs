//! The command line: which verb is meant, and where its flags come from (the words given, the environment,
//! `--config FILE`).

use std::ffi::OsString;

use anyhow::Context;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};

use crate::{
    role::{self, LogFormat, config_file},
    verbs,
};

/// Kubernetes on plain hosts: one binary, eBPF Services, the API your tools know
#[derive(Debug, Parser)]
#[command(
    name = "fairlead",
    version,
    max_term_width = 120,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:
  fairlead up                             # a cluster on this machine, until Ctrl-C
  fairlead apply -f web.yaml              # make it hold what a manifest says
  fairlead get pods -w                    # look
  fairlead inspect service web            # what the kernel does with a Service

kubectl works too: export KUBECONFIG=/var/lib/fairlead/admin.kubeconfig"
)]
pub struct Invocation {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Up(Box<role::up::Up>),
    Server(Box<role::server::Server>),
    #[command(subcommand)]
    Node(role::node::Node),
    #[command(subcommand)]
    Token(role::token::Token),
    Apply(verbs::apply::Apply),
    Get(verbs::get::Get),
    Describe(verbs::describe::Describe),
    Delete(verbs::delete::Delete),
    #[command(visible_alias = "log")]
    Logs(verbs::logs::Logs),
    Exec(verbs::exec::Exec),
    Attach(verbs::attach::Attach),
    PortForward(verbs::port_forward::PortForward),
    Cp(verbs::cp::Cp),
    #[command(subcommand)]
    Inspect(verbs::inspect::Inspect),
    Create(Box<verbs::create::Create>),
    Run(verbs::run::Run),
    Expose(verbs::expose::Expose),
    Scale(verbs::scale::Scale),
    #[command(subcommand)]
    Rollout(verbs::rollout::Rollout),
    Label(verbs::relabel::Label),
    Annotate(verbs::relabel::Annotate),
    #[command(subcommand)]
    Set(verbs::set::Set),
    Patch(verbs::patch::Patch),
    Wait(verbs::wait::Wait),
    ApiResources(verbs::api_resources::ApiResources),
    ClusterInfo(verbs::cluster_info::ClusterInfo),
    Version(verbs::version::Version),
}

impl Invocation {
    /// How the log is written, where this process is to be a part of a cluster; `None` for a client of one.
    pub fn log_format(&self) -> Option<LogFormat> {
        match &self.verb {
            Verb::Up(up) => Some(up.log_format()),
            Verb::Server(server) => Some(server.log_format()),
            Verb::Node(node) => node.log_format(),
            _ => None,
        }
    }

    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.verb {
            Verb::Up(verb) => verb.run().await,
            Verb::Node(verb) => verb.run().await,
            Verb::Server(verb) => verb.run().await,
            Verb::Token(verb) => verb.run().await,
            Verb::Apply(verb) => verb.run().await,
            Verb::Get(verb) => verb.run().await,
            Verb::Describe(verb) => verb.run().await,
            Verb::Delete(verb) => verb.run().await,
            Verb::Logs(verb) => verb.run().await,
            Verb::Exec(verb) => verb.run().await,
            Verb::Attach(verb) => verb.run().await,
            Verb::PortForward(verb) => verb.run().await,
            Verb::Cp(verb) => verb.run().await,
            Verb::Inspect(verb) => verb.run().await,
            Verb::Create(verb) => verb.run().await,
            Verb::Run(verb) => verb.run().await,
            Verb::Expose(verb) => verb.run().await,
            Verb::Scale(verb) => verb.run().await,
            Verb::Rollout(verb) => verb.run().await,
            Verb::Label(verb) => verb.run().await,
            Verb::Annotate(verb) => verb.run().await,
            Verb::Set(verb) => verb.run().await,
            Verb::Patch(verb) => verb.run().await,
            Verb::Wait(verb) => verb.run().await,
            Verb::ApiResources(verb) => verb.run().await,
            Verb::ClusterInfo(verb) => verb.run().await,
            Verb::Version(verb) => verb.run().await,
        }
    }
}

/// Reads the words of a command line. A `--config` file's keys are flags of the verb: what is given as a flag wins over
/// the file.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> anyhow::Result<Invocation> {
    let mut words = cluster_flags_last(words.into_iter().collect());
    let mut command = Invocation::command();
    // Flags that must be given may be in the file, so what is missing here is no error yet.
    let given = command.clone().ignore_errors(true).try_get_matches_from(&words).ok();
    if let Some((given, file)) = given.as_ref().and_then(|given| Some((given, config_file(given)?))) {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read the configuration {file}"))?;
        let (path, leaf) = leaf(given);
        let verb = path.iter().fold(&command, |at, name| at.find_subcommand(name).unwrap_or(at));
        let flags = config_file::flags(&file, &text, verb, leaf)?;
        for flag in &flags {
            // One at a time, so that a value that is refused is told with its line.
            let alone: Vec<OsString> = words.iter().cloned().chain(flag.words.iter().map(OsString::from)).collect();
            let refused = command.clone().try_get_matches_from(alone).err();
            if let Some(error) = refused.filter(|error| error.kind() != ErrorKind::MissingRequiredArgument) {
                let why = error.to_string();
                let why = why.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
                anyhow::bail!("{file}, line {}: {why}", flag.line);
            }
        }
        words.extend(flags.into_iter().flat_map(|flag| flag.words).map(OsString::from));
    }
    let matches = command.try_get_matches_from_mut(&words)?;
    Ok(Invocation::from_arg_matches(&matches)?)
}

/// Flags that say which cluster and namespace may stand before the verb, as kubectl's; they are the verb's own behind
/// it.
fn cluster_flags_last(mut words: Vec<OsString>) -> Vec<OsString> {
    const FLAGS: [&str; 4] = ["--namespace", "--kubeconfig", "--context", "--data-dir"];
    let mut moved = Vec::new();
    while let Some(word) = words.get(1).and_then(|word| word.to_str()) {
        let alone = word == "-n" || FLAGS.contains(&word);
        let joined = (word.starts_with("-n") && word.len() > 2)
            || word.split_once('=').is_some_and(|(flag, _)| FLAGS.contains(&flag));
        let count = match (alone, joined) {
            (true, _) => 2.min(words.len() - 1),
            (false, true) => 1,
            (false, false) => break,
        };
        moved.extend(words.drain(1..=count));
    }
    // Without a verb there is nothing to move them behind, and clap prints the usage.
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    words.splice(end..end, moved);
    words
}

/// The innermost verb's matches, with the names that lead to it.
fn leaf(matches: &ArgMatches) -> (Vec<&str>, &ArgMatches) {
    let (mut path, mut at) = (Vec::new(), matches);
    while let Some((name, inner)) = at.subcommand() {
        path.push(name);
        at = inner;
    }
    (path, at)
}

fn config_file(matches: &ArgMatches) -> Option<String> {
    let (_, leaf) = leaf(matches);
    leaf.try_get_one::<String>("config").ok().flatten().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Invocation::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
                let path = format!("{path} {}", verb.get_name());
                if verb.has_subcommands() {
                    check(verb, &path);
                } else {
                    let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                    assert!(help.contains(&path), "`{path} --help` has no example");
                    assert!(verb.get_about().is_some(), "`{path}` does not say what it does");
                }
            }
        }
        check(&Invocation::command(), "fairlead");
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_namespace_may_stand_before_the_verb() {
        let expected = words("fairlead run a --image=b -n x --context=c -- sleep 1");
        assert_eq!(cluster_flags_last(words("fairlead -n x --context=c run a --image=b -- sleep 1")), expected);
        let mut get = words("fairlead -nx get pods");
        get = cluster_flags_last(get);
        assert_eq!(get, words("fairlead get pods -nx"));
        assert!(parse(get).is_ok());
    }

    fn parse_with_config(line: &str, config: &str) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), config).expect("writable");
        parse(words(&format!("{line} --config {}", file.path().display())))
            .map(|invocation| format!("{invocation:?}").replace(&file.path().display().to_string(), "FILE"))
            .map_err(|error| error.to_string().replace(&file.path().display().to_string(), "FILE"))
    }

    #[test]
    fn flags_and_file_say_the_same_by_the_same_names() {
        let flags = "fairlead server --bind 127.0.0.1:7443 --service-cidr 10.50.0.0/16 \
                     --service-node-port-range 30000-40000 \
                     --advertise 10.0.0.1 --advertise 10.0.0.2 --node-monitor-grace-period 20s";
        let file = "bind: 127.0.0.1:7443\nservice-cidr: 10.50.0.0/16\nservice-node-port-range: 30000-40000\n\
                    advertise: [10.0.0.1, 10.0.0.2]\nnode-monitor-grace-period: 20s\n";
        let by_file = parse_with_config("fairlead server", file).expect("a valid file");
        let by_flags = parse_with_config(flags, "{}").expect("valid flags");
        assert_eq!(by_file, by_flags);
    }

    #[test]
    fn flags_that_must_be_given_may_stand_in_the_file() {
        let file = "join: https://10.0.0.1:6443\ntoken-file: /etc/fairlead/token\nnode-name: b\nmax-pods: 7\n";
        let by_file = parse_with_config("fairlead node run", file).expect("a complete file");
        let flags = "fairlead node run --join https://10.0.0.1:6443 --token-file /etc/fairlead/token --node-name b \
            --max-pods 7";
        assert_eq!(by_file, parse_with_config(flags, "{}").expect("complete flags"));
        let error = parse_with_config("fairlead node run", "node-name: b\n").expect_err("no cluster is named");
        assert!(error.contains("--join"), "{error}");
        let error = parse_with_config("fairlead node run", "node-name: b\nmax-pods: many\n").expect_err("no number");
        assert!(error.contains("FILE, line 2: invalid value 'many'"), "{error}");
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let shown = parse_with_config("fairlead server --bind 127.0.0.1:1", "bind: 127.0.0.1:2\n").expect("valid");
        assert!(shown.contains("127.0.0.1:1") && !shown.contains("127.0.0.1:2"), "{shown}");
    }

    #[test]
    fn only_roles_have_a_log_format_and_the_file_may_set_it() {
        let format = |line: &str| parse(words(line)).expect(line).log_format();
        assert_eq!(format("fairlead get pods"), None);
        assert_eq!(format("fairlead server"), Some(LogFormat::Text));
        assert_eq!(format("fairlead up --log-format=json"), Some(LogFormat::Json));
        let node = "fairlead node run --join https://a:1 --token t --log-format json";
        assert_eq!(format(node), Some(LogFormat::Json));
        let shown = parse_with_config("fairlead server", "log-format: json\n").expect("valid");
        assert!(shown.contains("log_format: Json"), "{shown}");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error =
            parse_with_config("fairlead server", "bind: 127.0.0.1:1\nservice-cdir: 10.0.0.0/8\n").expect_err("unknown");
        assert!(error.contains("FILE, line 2: unknown key \"service-cdir\""), "{error}");
        assert!(error.contains("service-cidr"), "the nearest known key is named: {error}");
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_line() {
        let error = parse_with_config("fairlead server", "cluster-domain: x\nbind: nowhere\n").expect_err("no address");
        assert!(error.contains("FILE, line 2: invalid value 'nowhere' for '--bind"), "{error}");
    }
}
