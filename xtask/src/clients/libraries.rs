//! Client libraries, each through a program in `tests/clients/`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::{Client, Outcome, Server, command};
use crate::{
    command::{find, output},
    workspace,
};

/// What is taken from the registry of Python packages.
const PYTHON_CLIENT: &str = "kubernetes==37.0.2";
/// What is taken from npm: the last that Node.js 20 runs.
const NODE_CLIENT: &str = "@kubernetes/client-node@1.4.0";

/// All of them.
pub fn all() -> Vec<Client> {
    let client =
        |name: &str, run: fn(&Server) -> anyhow::Result<Outcome>| Client { name: name.to_owned(), run: Box::new(run) };
    vec![client("kube-rs", rust), client("client-go", go), client("python", python), client("node", node)]
}

fn rust(server: &Server) -> anyhow::Result<Outcome> {
    output(workspace::cargo().args(["build", "--locked", "--example", "kube-rs"]))?;
    run(server, command(workspace::target_dir().join("debug/examples/kube-rs"), ["kube-rs"]))
}

fn go(server: &Server) -> anyhow::Result<Outcome> {
    let Some(go) = find("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.exists())) else {
        return Ok(Outcome::Skipped("there is no go".into()));
    };
    let program = kept("go")?.join("client");
    let mut build = command(go, ["build", "-o"]);
    build.arg(&program).arg(".").current_dir(sources("go"));
    output(&mut build)?;
    run(server, command(program, ["client-go"]))
}

fn python(server: &Server) -> anyhow::Result<Outcome> {
    let Some(python) = find("python3") else { return Ok(Outcome::Skipped("there is no python3".into())) };
    let venv = kept("python")?.join("venv");
    let own = venv.join("bin/python");
    if !own.exists() {
        let mut make = command(python, ["-m", "venv"]);
        if let Err(error) = output(make.arg(&venv)) {
            return Ok(Outcome::Skipped(format!("python3 has no venv: {error}")));
        }
    }
    output(&mut command(&own, ["-m", "pip", "install", "--quiet", PYTHON_CLIENT]))?;
    let mut client = command(own, [sources("python").join("client.py")]);
    client.arg("python");
    run(server, client)
}

fn node(server: &Server) -> anyhow::Result<Outcome> {
    let (Some(node), Some(npm)) = (find("node"), find("npm")) else {
        return Ok(Outcome::Skipped("there is no node with npm".into()));
    };
    let dir = kept("node")?;
    let mut install = command(npm, ["install", "--silent", "--no-audit", "--no-fund", NODE_CLIENT]);
    output(install.current_dir(&dir))?;
    // Node.js looks for packages beside the program.
    let program = dir.join("client.mjs");
    std::fs::copy(sources("node").join("client.mjs"), &program)
        .with_context(|| format!("cannot write {}", program.display()))?;
    let mut client = command(node, [program]);
    client.arg("node");
    run(server, client)
}

fn run(server: &Server, client: Command) -> anyhow::Result<Outcome> {
    output(&mut server.as_administrator(client)).map(|_| Outcome::Passed)
}

fn sources(language: &str) -> PathBuf {
    workspace::root().join("tests/clients").join(language)
}

/// Where what a language needs is kept from one run to the next.
fn kept(language: &str) -> anyhow::Result<PathBuf> {
    let dir: PathBuf = Path::new(&workspace::target_dir()).join("clients").join(language);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
