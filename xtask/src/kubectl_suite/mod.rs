//! `cargo xtask kubectl-suite`: Kubernetes' own tests of kubectl (`test/cmd` of its source) against a control service
//! of this machine. They are about 90 cases in bash, each of many kubectl commands whose effects and words they check.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use crate::{build, command, local_server::Server, peers, workspace};

/// The parts of Kubernetes' source that the suite needs.
const PARTS: [&str; 5] =
    ["hack", "test/cmd", "test/fixtures", "test/e2e/testing-manifests", "third_party/forked/shell2junit"];
/// The script's last line.
const ENDED: &str = "the suite has ended";
/// The token of the suite's administrator. A token of the service takes its place.
const TOKEN: &str = "admin-token";
/// What the suite's certificate authority is called, as two versions of openssl print it.
const AUTHORITY: [&str; 2] = ["/CN=127.0.0.1", "CN = 127.0.0.1"];
/// Where the suite takes files from that it has itself: it runs without the internet, too.
const REPOSITORY: &str = "https://raw.githubusercontent.com/kubernetes/kubernetes/master/";
/// The suite asks for these addresses of Services, and for Nodes that have no pod subnet: there is but one, and the
/// Node that is made first has it. Who decides, and the plugins, are as in its own server.
const FLAGS: [&str; 5] = [
    "--authorization-mode=RBAC,AlwaysAllow",
    "--service-cidr=10.0.0.0/24",
    "--cluster-cidr=10.244.0.0/24",
    "--node-cidr-mask-size=24",
    "--disable-admission-plugins=ServiceAccount,DefaultStorageClass,DefaultTolerationSeconds,MutatingAdmissionWebhook,\
     ValidatingAdmissionWebhook,StorageObjectInUseProtection",
];

/// Cases that fail here, and why.
const EXPECTED: [(&str, &str); 1] =
    [("run_swagger_tests", "looks for sentences of Kubernetes' documentation in OpenAPI; ours has its own")];

/// Run Kubernetes' own tests of kubectl against a control service on loopback
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask kubectl-suite --peers DIR                  all cases\n  \
                        cargo xtask kubectl-suite --peers DIR pod kubectl_diff   these alone")]
pub struct KubectlSuite {
    /// Only these cases, as the suite names them without run_ and _tests
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    /// Directory where kubectl and kubectl-convert were built
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_PEERS")]
    peers: PathBuf,
    /// Run this build of fairlead [default: the release build, which is made]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

impl KubectlSuite {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        for tool in ["go", "jq", "openssl", "curl"] {
            if command::find(tool).is_none() {
                bail!("{tool} is not on the PATH");
            }
        }
        let binary = match &self.binary {
            Some(binary) => std::path::absolute(binary)?,
            None => {
                build::release()?;
                workspace::release_binary()
            }
        };
        let dir = workspace::target_dir().join("kubectl-suite");
        let source = copy_source(&dir, &std::path::absolute(&self.peers)?)?;
        let server = Server::start(binary, &FLAGS)?;
        fit_source(&server, &source)?;
        let log = dir.join("log");
        let cases = self.run_suite(&server, &source, &log)?;
        fs::remove_dir_all(&source).with_context(|| format!("cannot remove {}", source.display()))?;
        println!("{}; all that was said: {}", summary(&cases), log.display());
        let failed: Vec<&str> = cases.iter().filter(|case| case.is_unexpected()).map(|case| &*case.name).collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }

    /// Runs the cases, tells of each as it ends, and keeps all that they say in `log`.
    fn run_suite(&self, server: &Server, source: &Path, log: &Path) -> anyhow::Result<Vec<Case>> {
        let mut suite = Command::new("bash");
        suite.arg("-c").arg(include_str!("run.sh")).current_dir(source).stdin(Stdio::null());
        suite.env("SECURE_API_PORT", server.port().to_string()).env("ADMIN_KUBECONFIG", server.kubeconfig());
        suite.env("TMPDIR", server.scratch()).env("KUBE_JUNIT_REPORT_DIR", server.scratch().join("junit"));
        // Versions of kubectl and server are not the same text.
        suite.env("WHAT", self.cases.join(" ")).env("ALLOW_SKEW", "1").env_remove("KUBECONFIG");
        let (reader, writer) = std::io::pipe()?;
        let mut child = suite.stdout(writer.try_clone()?).stderr(writer).spawn().context("cannot run bash")?;
        drop(suite);
        let mut log_file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let (mut cases, mut is_ended) = (Vec::new(), false);
        let mut lines = BufReader::new(reader);
        let mut line = Vec::new();
        // What kubectl prints need not be UTF-8.
        while lines.read_until(b'\n', &mut line)? > 0 {
            log_file.write_all(&line)?;
            let text = String::from_utf8_lossy(&line);
            read(&text, &mut cases);
            // What follows the last case takes away the pods of all.
            is_ended |= text.trim_end() == ENDED;
            line.clear();
        }
        let status = child.wait()?;
        tell_last(&cases);
        let begun = |wanted: &String| cases.iter().any(|case| case.name == format!("run_{wanted}_tests"));
        if let Some(missing) = self.cases.iter().find(|case| !begun(case)) {
            bail!("the case {missing} was not run: see {}", log.display());
        }
        // It fails by itself, and so does its last command, once a case has failed.
        if cases.is_empty() || !status.success() && !cases.iter().any(|case| case.has_failed) {
            bail!("the suite broke off ({status}): see {}", log.display());
        }
        if !is_ended {
            bail!("the suite ended before its last case: see {}", log.display());
        }
        Ok(cases)
    }
}

/// A case that was begun.
#[derive(Debug, PartialEq, Eq)]
struct Case {
    /// As the suite names it: `run_pod_tests`.
    name: String,
    has_failed: bool,
}

impl Case {
    fn expected(&self) -> Option<&'static str> {
        EXPECTED.iter().find(|(name, _)| *name == self.name).map(|(_, why)| *why)
    }

    /// An expectation that does not hold any more is to be taken out.
    fn is_unexpected(&self) -> bool {
        self.has_failed != self.expected().is_some()
    }

    fn outcome(&self) -> String {
        match (self.has_failed, self.expected()) {
            (false, None) => "passed".to_owned(),
            (false, Some(why)) => format!("passed, though it is expected to fail since it {why}"),
            (true, None) => "failed".to_owned(),
            (true, Some(why)) => format!("failed as expected: it {why}"),
        }
    }
}

/// Takes a line of the suite. A case that begins ends the one before.
fn read(line: &str, cases: &mut Vec<Case>) {
    let line = line.trim_end();
    if let Some(name) = line.strip_prefix("Recording: ") {
        // A case of the suite's own machinery, which must fail.
        if name != "record_command_canary" {
            tell_last(cases);
            cases.push(Case { name: name.to_owned(), has_failed: false });
        }
    } else if let Some(name) = line.strip_prefix("Error when running ")
        && let Some(case) = cases.iter_mut().rfind(|case| case.name == name)
    {
        case.has_failed = true;
    }
}

fn tell_last(cases: &[Case]) {
    if let Some(case) = cases.last() {
        println!("{}: {}", case.name, case.outcome());
    }
}

fn summary(cases: &[Case]) -> String {
    let count = |is: fn(&Case) -> bool| cases.iter().filter(|case| is(case)).count();
    let (passed, failed) = (count(|case| !case.has_failed), count(|case| case.has_failed && case.is_unexpected()));
    let expected = count(|case| case.has_failed && !case.is_unexpected());
    format!("{} cases: {passed} passed, {failed} failed, {expected} failed as expected", cases.len())
}

/// A copy of the suite with the programs that it runs, at a place where it may write.
fn copy_source(dir: &Path, programs: &Path) -> anyhow::Result<PathBuf> {
    let (from, to) = (peers::kubernetes_source()?, dir.join("source"));
    if to.exists() {
        fs::remove_dir_all(&to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    for part in PARTS {
        let parent = to.join(part).parent().context("a part lies in a directory")?.to_owned();
        fs::create_dir_all(&parent)?;
        command::run(Command::new("cp").arg("-r").arg(from.join(part)).arg(parent))?;
    }
    // A published module has no files that can be run.
    command::run(Command::new("chmod").args(["-R", "u+wx"]).arg(&to))?;
    let bin = to.join("_output/bin");
    fs::create_dir_all(&bin)?;
    for program in ["kubectl", "kubectl-convert"] {
        let file = programs.join(program);
        if !file.is_file() {
            bail!("{} is missing: cargo xtask peers {} {program}", file.display(), programs.display());
        }
        symlink(file, bin.join(program))?;
    }
    Ok(to)
}

/// Has the suite use a token and the authority of the service and files of its own, and leaves the service's
/// certificate where the suite looks for it.
fn fit_source(server: &Server, source: &Path) -> anyhow::Result<()> {
    let kubectl = |arguments: &[&str]| {
        let mut kubectl = server.as_administrator(Command::new(source.join("_output/bin/kubectl")));
        command::output(kubectl.args(arguments))
    };
    kubectl(&["create", "serviceaccount", "-n", "kube-system", "kubectl-suite"])?;
    let account = "--serviceaccount=kube-system:kubectl-suite";
    kubectl(&["create", "clusterrolebinding", "kubectl-suite", "--clusterrole=cluster-admin", account])?;
    let token = kubectl(&["create", "token", "-n", "kube-system", "kubectl-suite", "--duration=24h"])?;
    let scripts: Vec<_> =
        fs::read_dir(source.join("test/cmd"))?.map(|file| Ok(file?.path())).collect::<io::Result<_>>()?;
    for file in scripts.into_iter().chain([source.join("hack/lib/util.sh")]) {
        let mut text = fs::read_to_string(&file)?.replace(TOKEN, token.trim()).replace(REPOSITORY, "");
        for name in AUTHORITY {
            text = text.replace(name, "CN = fairlead-ca");
        }
        fs::write(&file, text)?;
    }
    let data = "jsonpath={.clusters[0].cluster.certificate-authority-data}";
    let certificate = kubectl(&["config", "view", "--raw", "-o", data])?;
    let certificate = command::output_with_input(Command::new("base64").arg("-d"), &certificate)?;
    fs::write(server.scratch().join("apiserver.crt"), certificate)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_suite_become_cases() {
        let mut cases = Vec::new();
        for line in [
            "Recording: record_command_canary\n",
            "Error when running record_command_canary",
            "Recording: run_role_tests\n",
            "role/reader created",
            "Error when running run_role_tests\n",
            "Recording: run_swagger_tests",
            "Error when running run_swagger_tests",
            "Recording: run_wait_tests",
        ] {
            read(line, &mut cases);
        }
        assert_eq!(summary(&cases), "3 cases: 1 passed, 1 failed, 1 failed as expected");
        assert!(cases[0].is_unexpected() && !cases[1].is_unexpected() && !cases[2].has_failed);
        assert!(cases[1].outcome().contains("sentences"), "{}", cases[1].outcome());
    }
}
