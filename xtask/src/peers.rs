//! `cargo xtask peers`: the programs that benches, the conformance suite and the differential test run beside fairlead,
//! built with Go from the published modules of their projects.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::{command, workspace};

/// The version of Kubernetes whose API fairlead serves.
const KUBERNETES: &str = "1.35.4";
const COREDNS: &str = "1.14.7";
const ETCD: &str = "3.6.5";
const HELM: &str = "3.19.2";

/// How a program is built.
enum Recipe {
    /// `go install` of a module that has no replacements.
    Install { module: &'static str, version: &'static str },
    /// A package of Kubernetes' own module, or of one that it needs.
    Kubernetes { package: &'static str },
    /// A package of Kubernetes with tests, as a program that runs them.
    KubernetesTests { package: &'static str },
    /// A `main` of our own around the server's package: etcd's command is in a module that cannot be installed.
    Etcd,
}

/// Each program and how it is built.
const PROGRAMS: &[(&str, Recipe)] = &[
    ("kube-apiserver", Recipe::Kubernetes { package: "k8s.io/kubernetes/cmd/kube-apiserver" }),
    ("kube-controller-manager", Recipe::Kubernetes { package: "k8s.io/kubernetes/cmd/kube-controller-manager" }),
    ("kube-scheduler", Recipe::Kubernetes { package: "k8s.io/kubernetes/cmd/kube-scheduler" }),
    ("kube-proxy", Recipe::Kubernetes { package: "k8s.io/kubernetes/cmd/kube-proxy" }),
    ("kubectl", Recipe::Kubernetes { package: "k8s.io/kubernetes/cmd/kubectl" }),
    ("kubectl-convert", Recipe::Kubernetes { package: "k8s.io/kubernetes/cmd/kubectl-convert" }),
    ("agnhost", Recipe::Kubernetes { package: "k8s.io/kubernetes/test/images/agnhost" }),
    ("ginkgo", Recipe::Kubernetes { package: "github.com/onsi/ginkgo/v2/ginkgo" }),
    ("e2e.test", Recipe::KubernetesTests { package: "k8s.io/kubernetes/test/e2e" }),
    ("coredns", Recipe::Install { module: "github.com/coredns/coredns", version: COREDNS }),
    ("helm", Recipe::Install { module: "helm.sh/helm/v3/cmd/helm", version: HELM }),
    ("etcd", Recipe::Etcd),
];

/// Build the programs that fairlead is measured and tested beside, with Go
#[derive(Debug, clap::Args)]
#[command(after_help = "Which task takes which programs, each from --peers DIR:\n  \
    bench api                kube-apiserver etcd\n  \
    bench control            kube-apiserver kube-controller-manager kube-scheduler etcd\n  \
    bench connect, program   kube-proxy\n  \
    bench dns                coredns\n  \
    differential             kube-apiserver kube-controller-manager etcd\n  \
    access-matrix            kube-apiserver kube-controller-manager etcd kubectl\n  \
    conformance              e2e.test ginkgo agnhost etcd\n  \
    kubectl-suite            kubectl kubectl-convert\n  \
    clients                  helm, on the PATH\n\n\
    On two cores the first program of Kubernetes takes about 3 minutes, each further one 1, and e2e.test 5.")]
pub struct Peers {
    /// Directory that the programs are written to; those that are there already are kept
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Only these programs
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

impl Peers {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        if command::find("go").is_none() {
            bail!("go is not on the PATH: install Go 1.25 or newer");
        }
        let chosen = chosen(&self.names)?;
        fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        let dir = self.dir.canonicalize()?;
        for (name, recipe) in chosen {
            if dir.join(name).is_file() {
                println!("{name}: is there");
                continue;
            }
            println!("{name}: building");
            build(&dir, name, recipe).with_context(|| format!("cannot build {name}"))?;
        }
        Ok(())
    }
}

/// The programs of these names, or all of them; an error names one that is not known.
fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static (&'static str, Recipe)>> {
    if names.is_empty() {
        return Ok(PROGRAMS.iter().collect());
    }
    let find = |name: &String| PROGRAMS.iter().find(|(known, _)| known == name);
    let known = || PROGRAMS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| find(name).with_context(|| format!("unknown program {name:?}: one of {}", known())))
        .collect()
}

fn build(dir: &Path, name: &str, recipe: &Recipe) -> anyhow::Result<()> {
    let program = dir.join(name);
    match recipe {
        Recipe::Install { module, version } => {
            let module = format!("{module}@v{version}");
            command::run(go(dir).env("GOBIN", dir).args(["install", &module]))
        }
        Recipe::Kubernetes { package } => {
            let mut go = go(&kubernetes_module(dir)?);
            command::run(go.args(["build", "-ldflags", &version_flags(), "-o"]).arg(&program).arg(package))
        }
        Recipe::KubernetesTests { package } => {
            let mut go = go(&kubernetes_module(dir)?);
            command::run(
                go.args(["test", "-c", "-vet=off", "-ldflags", &version_flags(), "-o"]).arg(&program).arg(package),
            )
        }
        Recipe::Etcd => {
            let module = dir.join("src/etcd");
            fs::create_dir_all(&module)?;
            fs::write(module.join("go.mod"), "module peers.local/etcd\n")?;
            let main = "package main\n\nimport (\n\t\"os\"\n\n\t\"go.etcd.io/etcd/server/v3/etcdmain\"\n)\n\n\
                        func main() { etcdmain.Main(os.Args) }\n";
            fs::write(module.join("main.go"), main)?;
            command::output(go(&module).args(["get", &format!("go.etcd.io/etcd/server/v3@v{ETCD}")]))?;
            command::output(go(&module).args(["mod", "tidy"]))?;
            command::run(go(&module).arg("build").arg("-o").arg(&program).arg("."))
        }
    }
}

/// `go` in `dir`, for programs that need no libraries of the host.
fn go(dir: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(dir).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod");
    go
}

/// What the programs of Kubernetes say their version is: a release build sets it so.
fn version_flags() -> String {
    let mut numbers = KUBERNETES.split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let mut flags = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (variable, value) in
            [("gitVersion", format!("v{KUBERNETES}")), ("gitMajor", major.to_owned()), ("gitMinor", minor.to_owned())]
        {
            flags.push_str(&format!(" -X {package}.{variable}={value}"));
        }
    }
    flags
}

/// The directory of a module that needs Kubernetes', made where it is not there.
///
/// Kubernetes' module replaces its parts by directories of its repository, which a published module lacks: this one
/// replaces them by the parts as they were published with it.
fn kubernetes_module(dir: &Path) -> anyhow::Result<PathBuf> {
    let module = dir.join("src/kubernetes");
    if module.join("go.sum").is_file() {
        return Ok(module);
    }
    fs::create_dir_all(&module)?;
    let about = downloaded_kubernetes(dir)?;
    let manifest = about.get("GoMod").and_then(|file| file.as_str()).context("go mod download names no go.mod")?;
    let manifest = command::output(Command::new("go").args(["mod", "edit", "-json", manifest]))?;
    let replaced = staged_parts(&serde_json::from_str(&manifest)?);
    if replaced.is_empty() {
        bail!("the go.mod of Kubernetes {KUBERNETES} has no parts in its repository: its layout is another one now");
    }
    fs::write(module.join("go.mod"), go_mod(&replaced))?;
    // A package that needs it: without one `go` would drop the requirement.
    fs::write(module.join("peers.go"), "package peers\n\nimport _ \"k8s.io/kubernetes/cmd/kube-proxy/app\"\n")?;
    command::output(go(&module).args(["get", &kubernetes_name()]))?;
    Ok(module)
}

fn kubernetes_name() -> String {
    format!("k8s.io/kubernetes@v{KUBERNETES}")
}

/// What `go mod download` tells of Kubernetes' module, which it fetches into its cache.
fn downloaded_kubernetes(dir: &Path) -> anyhow::Result<BTreeMap<String, serde_json::Value>> {
    let about = command::output(go(dir).args(["mod", "download", "-json", &kubernetes_name()]))?;
    serde_json::from_str(&about).context("cannot read what go mod download tells")
}

/// The directory with the source of Kubernetes' own module. It is Go's cache: not to be written to.
pub fn kubernetes_source() -> anyhow::Result<PathBuf> {
    let about = downloaded_kubernetes(workspace::root())?;
    let source = about.get("Dir").and_then(|dir| dir.as_str()).context("go mod download names no directory")?;
    Ok(source.into())
}

/// Modules that a `go.mod`, as `go mod edit -json` prints it, replaces by directories under `./staging`.
fn staged_parts(manifest: &serde_json::Value) -> Vec<String> {
    let replaced = manifest["Replace"].as_array().map(Vec::as_slice).unwrap_or_default();
    let staged =
        replaced.iter().filter(|r| r["New"]["Path"].as_str().is_some_and(|path| path.starts_with("./staging")));
    staged.filter_map(|replaced| Some(replaced["Old"]["Path"].as_str()?.to_owned())).collect()
}

/// A `go.mod` that takes the published form of each of Kubernetes' parts: 0.35.4 for 1.35.4.
fn go_mod(parts: &[String]) -> String {
    let version = KUBERNETES.strip_prefix("1.").unwrap_or(KUBERNETES);
    let replace = parts.iter().map(|part| format!("replace {part} => {part} v0.{version}\n"));
    format!("module peers.local/kubernetes\n\n{}", replace.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_program_is_named_with_the_known_ones() {
        let error = chosen(&["etdc".to_owned()]).err().expect("is unknown").to_string();
        assert!(error.contains("\"etdc\"") && error.contains("kube-apiserver, ") && error.contains("etcd"), "{error}");
        assert_eq!(chosen(&[]).expect("all").len(), PROGRAMS.len());
    }

    #[test]
    fn parts_in_the_repository_are_replaced_by_published_ones_and_others_are_left() {
        let manifest = serde_json::json!({"Replace": [
            {"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}},
            {"Old": {"Path": "example.test/a"}, "New": {"Path": "example.test/b", "Version": "v1.0.0"}}]});
        let parts = staged_parts(&manifest);
        assert_eq!(parts, ["k8s.io/api"]);
        assert_eq!(go_mod(&parts), "module peers.local/kubernetes\n\nreplace k8s.io/api => k8s.io/api v0.35.4\n");
    }

    #[test]
    fn programs_say_the_version_of_the_release() {
        let flags = version_flags();
        assert!(flags.contains("-X k8s.io/client-go/pkg/version.gitVersion=v1.35.4"), "{flags}");
        assert!(flags.contains("-X k8s.io/component-base/version.gitMinor=35"), "{flags}");
    }
}
