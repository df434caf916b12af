//! `fairlead cp`: files to and from a container, through `tar` in the container.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::Handle,
};

use super::remote::{self, Channels, PodTarget, Streams};
use crate::{
    cluster::{Cluster, ConnectArgs, connect},
    failure::{CommandEnded, ErrorWithHint},
};

/// Copy files to or from a container
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead cp ./site web-1:/www
  fairlead cp web-1:/var/log/app.log ./app.log -c app
  fairlead cp other-namespace/web-1:/etc ./etc

The container must have the program tar. Symbolic links are not copied from it.")]
pub struct Cp {
    /// [[NAMESPACE/]POD:]PATH
    #[arg(value_name = "FROM")]
    from: String,
    /// [[NAMESPACE/]POD:]PATH
    #[arg(value_name = "TO")]
    to: String,
    /// Container of the pod
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Give the copies in the container its user's permissions, not those of the files
    #[arg(long)]
    no_preserve: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Here(PathBuf),
    Pod { namespace: Option<String>, pod: String, path: String },
}

/// What the tar in a container and this side write to each other at most before the other reads.
const PIPE: usize = 256 * 1024;

impl Cp {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        remote::ignore_broken_pipes();
        match (place(&self.from)?, place(&self.to)?) {
            (Place::Here(from), Place::Pod { namespace, pod, path }) => {
                let (cluster, target) = self.target(namespace, &pod).await?;
                self.upload(&cluster, &target, from, &path).await
            }
            (Place::Pod { namespace, pod, path }, Place::Here(to)) => {
                let (cluster, target) = self.target(namespace, &pod).await?;
                download(&cluster, &target, &path, to).await
            }
            _ => Err(ErrorWithHint::new(
                "one of the two must be in a pod",
                "for instance: fairlead cp ./site web-1:/www",
            )
            .into()),
        }
    }

    async fn target(&self, namespace: Option<String>, pod: &str) -> anyhow::Result<(Cluster, PodTarget)> {
        let mut connection = self.connect.clone();
        connection.namespace = namespace.or(connection.namespace);
        let cluster = connect(&connection).await?;
        let (target, _) = remote::find(&cluster, pod, self.container.as_deref(), false).await?;
        target.check_is_not_completed("exec into")?;
        Ok((cluster, target))
    }

    async fn upload(&self, cluster: &Cluster, pod: &PodTarget, from: PathBuf, to: &str) -> anyhow::Result<()> {
        if std::fs::symlink_metadata(&from).is_err() {
            bail!("{} doesn't exist in local filesystem", from.display());
        }
        let own_name = from.canonicalize()?.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut to = to.trim_end_matches('/').to_owned();
        if to.is_empty() || is_directory(cluster, pod, &to).await? {
            to = format!("{to}/{}", own_name.context("the root directory has no name to copy it by")?);
        }
        let (directory, name) = to.rsplit_once('/').unwrap_or((".", &to));
        let directory = if directory.is_empty() { "/" } else { directory };
        let mut command = vec!["tar"];
        if self.no_preserve {
            command.extend(["--no-same-permissions", "--no-same-owner"]);
        }
        command.extend(["-xmf", "-", "-C", directory]);
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let (name, mut pipe) = (name.to_owned(), Pipe { stream: ours, runtime: Handle::current() });
        let packing = tokio::task::spawn_blocking(move || {
            pack(&mut pipe, &from, &name)?;
            pipe.runtime.block_on(pipe.stream.shutdown())
        });
        let channels = Channels {
            stdin: Some(Box::pin(theirs)),
            stdout: Box::pin(tokio::io::stdout()),
            stderr: Box::pin(tokio::io::stderr()),
            sizes: None,
        };
        run(cluster, pod, &command, channels).await?;
        packing.await?.context("cannot read what is to be copied")
    }
}

/// `web-1:/www`, `other/web-1:/www`, or a path of this host.
fn place(word: &str) -> anyhow::Result<Place> {
    let Some((pod, path)) = word.split_once(':') else {
        if word.is_empty() {
            bail!("filepath can not be empty");
        }
        return Ok(Place::Here(word.into()));
    };
    if path.is_empty() {
        bail!("filepath can not be empty");
    }
    let (namespace, pod) = match pod.split('/').collect::<Vec<_>>()[..] {
        [pod] if !pod.is_empty() => (None, pod),
        [namespace, pod] if !namespace.is_empty() && !pod.is_empty() => (Some(namespace.to_owned()), pod),
        _ => bail!("filespec must match the canonical format: [[namespace/]pod:]file/path"),
    };
    Ok(Place::Pod { namespace, pod: pod.to_owned(), path: path.to_owned() })
}

async fn run(cluster: &Cluster, pod: &PodTarget, command: &[&str], channels: Channels<'_>) -> anyhow::Result<()> {
    let words: Vec<(&str, &str)> = command.iter().map(|word| ("command", *word)).collect();
    let path = Streams { stdin: channels.stdin.is_some(), tty: false }.path(pod, "exec", &words);
    let socket = cluster.open_socket(&path, remote::PROTOCOL).await?;
    remote::run(socket, channels).await
}

async fn is_directory(cluster: &Cluster, pod: &PodTarget, path: &str) -> anyhow::Result<bool> {
    let nothing = tokio::io::sink;
    let channels = Channels { stdin: None, stdout: Box::pin(nothing()), stderr: Box::pin(nothing()), sizes: None };
    match run(cluster, pod, &["test", "-d", path], channels).await {
        Ok(()) => Ok(true),
        Err(error) if error.downcast_ref::<CommandEnded>().is_some() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn download(cluster: &Cluster, pod: &PodTarget, from: &str, to: PathBuf) -> anyhow::Result<()> {
    let (theirs, ours) = tokio::io::duplex(PIPE);
    let mut pipe = Pipe { stream: ours, runtime: Handle::current() };
    let prefix = relative(Path::new(from));
    let unpacking = tokio::task::spawn_blocking(move || {
        let unpacked = unpack(&mut pipe, &prefix, &to);
        // What follows the archive is read, too: the other side ends with it.
        io::copy(&mut pipe, &mut io::sink())?;
        unpacked
    });
    let channels = Channels {
        stdin: None,
        stdout: Box::pin(theirs),
        // What tar says of leading slashes is no news.
        stderr: Box::pin(tokio::io::stderr()),
        sizes: None,
    };
    run(cluster, pod, &["tar", "cf", "-", from], channels).await?;
    unpacking.await?.context("cannot write the copy")
}

/// A stream of this program, for code that waits.
struct Pipe {
    stream: DuplexStream,
    runtime: Handle,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.runtime.block_on(self.stream.read(buffer))
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.runtime.block_on(self.stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a file, or a directory with all that is in it, as an archive in which it is called `name`.
fn pack(to: impl Write, from: &Path, name: &str) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    archive.follow_symlinks(false);
    if from.symlink_metadata()?.is_dir() {
        archive.append_dir_all(name, from)?;
    } else {
        archive.append_path_with_name(from, name)?;
    }
    archive.into_inner()?.flush()
}

/// A path as archives have it: relative, and without `.` and `..`.
fn relative(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

/// Writes what an archive has at `prefix` to `to`, and nothing anywhere else: a container may send what it likes.
fn unpack(from: impl Read, prefix: &Path, to: &Path) -> io::Result<()> {
    for entry in tar::Archive::new(from).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let has_parents = name.components().any(|component| component == Component::ParentDir);
        let cleaned = relative(&name);
        let Some(below) = cleaned.strip_prefix(prefix).ok().filter(|_| !has_parents) else {
            eprintln!("warning: file {:?} is outside target destination, skipping", name.display().to_string());
            continue;
        };
        let path = if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            std::fs::create_dir_all(&path)?;
        } else if kind.is_file() {
            io::copy(&mut entry, &mut File::create(&path)?)?;
        } else {
            eprintln!("warning: skipping {:?}: it is no file and no directory", name.display().to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_here_or_in_a_pod() {
        let pod = |namespace: Option<&str>| Place::Pod {
            namespace: namespace.map(str::to_owned),
            pod: "web".into(),
            path: "/a:b".into(),
        };
        assert_eq!(place("web:/a:b").unwrap(), pod(None));
        assert_eq!(place("shop/web:/a:b").unwrap(), pod(Some("shop")));
        assert_eq!(place("./site").unwrap(), Place::Here("./site".into()));
        for wrong in ["", "web:", ":/a", "a/b/c:/d", "/web:/a"] {
            place(wrong).unwrap_err();
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::create_dir_all(from.join("below/empty")).unwrap();
        std::fs::write(from.join("below/file"), "text").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("link")).unwrap();
        let mut archive = Vec::new();
        pack(&mut archive, &from, "there").unwrap();
        let to = dir.path().join("to");
        unpack(&archive[..], Path::new("there"), &to).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("below/file")).unwrap(), "text");
        assert!(to.join("below/empty").is_dir());
        assert!(to.join("link").symlink_metadata().is_err(), "links are not followed, and not made");
        let mut archive = Vec::new();
        pack(&mut archive, &from.join("below/file"), "one").unwrap();
        unpack(&archive[..], Path::new("one"), &dir.path().join("renamed")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("renamed")).unwrap(), "text");
    }

    #[test]
    fn an_archive_writes_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        for name in ["there/../../escaped", "elsewhere/escaped", "../escaped", "/escaped", "there/inside"] {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(1);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append(&header, &b"x"[..]).unwrap();
        }
        let to = dir.path().join("deep/to");
        unpack(&archive.into_inner().unwrap()[..], Path::new("there"), &to).unwrap();
        assert!(to.join("inside").is_file());
        let found: Vec<_> = std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(found, ["inside"]);
        assert!(!dir.path().join("escaped").exists() && !dir.path().join("deep/escaped").exists());
    }
}
