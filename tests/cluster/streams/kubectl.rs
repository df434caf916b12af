//! The clients that the tests are run with: the kubectls of this machine, each in every protocol that it speaks, and
//! `fairlead` itself.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use crate::kit::{
    Result,
    cluster::{Cluster, FAIRLEAD},
};

/// One kubectl that speaks one protocol, or what takes the same words.
pub struct Kubectl<'a> {
    /// For messages.
    pub name: String,
    cluster: &'a Cluster,
    program: PathBuf,
    websockets: bool,
}

/// The oldest kubectl, the newest with both protocols, and `fairlead`.
pub fn all(cluster: &Cluster) -> Result<Vec<Kubectl<'_>>> {
    let mut clients = kubectls(cluster)?;
    clients.push(client(cluster, &PathBuf::from(FAIRLEAD), true));
    Ok(clients)
}

/// The oldest kubectl, which speaks SPDY alone, and the newest with both protocols.
pub fn kubectls(cluster: &Cluster) -> Result<Vec<Kubectl<'_>>> {
    let versions = versions()?;
    let (Some(oldest), Some(newest)) = (versions.first(), versions.last()) else {
        return Err("there is no kubectl".into());
    };
    let chosen = [(oldest, false), (newest, true), (newest, false)];
    Ok(chosen.map(|(program, websockets)| client(cluster, program, websockets)).into())
}

/// Every kubectl with both protocols, where it knows both, and `fairlead`.
pub fn every_version(cluster: &Cluster) -> Result<Vec<Kubectl<'_>>> {
    let mut clients = Vec::new();
    for program in versions()? {
        clients.extend([true, false].map(|websockets| client(cluster, &program, websockets)));
    }
    clients.push(client(cluster, &PathBuf::from(FAIRLEAD), true));
    Ok(clients)
}

fn client<'a>(cluster: &'a Cluster, program: &Path, websockets: bool) -> Kubectl<'a> {
    let name = program.file_name().unwrap_or_default().display();
    let protocol = if websockets { "WebSocket" } else { "SPDY" };
    Kubectl { name: format!("{name} over {protocol}"), cluster, program: program.to_owned(), websockets }
}

/// The kubectls beside the one on the path, and that of the peers, if there is one: the oldest first.
fn versions() -> Result<Vec<PathBuf>> {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .find_map(|dir| dir.join("kubectl").canonicalize().ok())
        .ok_or("no kubectl is on the path")?;
    let beside = found.parent().ok_or("kubectl is in no directory")?;
    let mut versions: Vec<PathBuf> = std::fs::read_dir(beside)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("kubectl.1."))
        })
        .collect();
    versions.sort();
    let peer = std::env::var_os("FAIRLEAD_PEERS").map(|dir| PathBuf::from(dir).join("kubectl"));
    if versions.is_empty() {
        versions.push(found);
    }
    versions.extend(peer.filter(|path| path.is_file()));
    Ok(versions)
}

/// A program that is killed when it is dropped.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            eprintln!("a client could not be killed: {error}");
        }
    }
}

impl Kubectl<'_> {
    /// The command as words, for a shell.
    pub fn words(&self, arguments: &[&str]) -> Vec<String> {
        let program = self.program.display().to_string();
        std::iter::once(program).chain(arguments.iter().map(|word| (*word).to_owned())).collect()
    }

    /// A program in whose environment kubectl speaks the protocol.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.cluster.kubectl_command(program);
        for variable in ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"] {
            command.env(variable, self.websockets.to_string());
        }
        command
    }

    /// Runs kubectl with this input to its end.
    pub fn output(&self, arguments: &[&str], input: &[u8]) -> Result<Output> {
        let mut child = self.started(arguments)?;
        let mut stdin = child.stdin.take().ok_or("no standard input")?;
        let input = input.to_vec();
        // A program that reads no input closes it.
        let writing = std::thread::spawn(move || stdin.write_all(&input).ok());
        let output = child.wait_with_output()?;
        writing.join().map_err(|_| "the writer of the input panicked")?;
        Ok(output)
    }

    /// Starts kubectl, which is killed with the answer.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Killed> {
        Ok(Killed(self.started(arguments)?))
    }

    fn started(&self, arguments: &[&str]) -> Result<Child> {
        let program = self.program.display().to_string();
        let mut command = self.command(&program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| format!("{command:?}: {error}").into())
    }
}
