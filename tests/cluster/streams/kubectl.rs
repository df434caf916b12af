//! The kubectls of this machine, each in every protocol that it speaks.

use std::{
    io::Write,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use crate::kit::{Result, cluster::Cluster};

/// One kubectl that speaks one protocol.
pub struct Kubectl<'a> {
    /// For messages.
    pub name: String,
    cluster: &'a Cluster,
    program: PathBuf,
    websockets: bool,
}

/// The kubectl on the path with both protocols, those of other versions beside it with what they choose, and the one of
/// the peers, if there is one.
pub fn all(cluster: &Cluster) -> Result<Vec<Kubectl<'_>>> {
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
    let newest = peer.filter(|path| path.is_file()).or_else(|| versions.last().cloned()).unwrap_or(found);
    // The oldest speaks SPDY alone, those between choose as the newest.
    let programs =
        versions.first().map(|oldest| (oldest, false)).into_iter().chain([(&newest, true), (&newest, false)]);
    Ok(programs
        .map(|(program, websockets)| {
            let name = program.file_name().unwrap_or_default().display();
            let protocol = if websockets { "WebSocket" } else { "SPDY" };
            Kubectl { name: format!("{name} over {protocol}"), cluster, program: program.clone(), websockets }
        })
        .collect())
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
