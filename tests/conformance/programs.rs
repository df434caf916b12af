//! The programs that the suite and its images are made of: peers that were built beforehand, and what is built here
//! from the Kubernetes module and Debian packages. What is done is kept for the next run.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::kit::{Result, on_path, run};

/// The peers that the suite needs, in one directory.
pub struct Peers {
    /// Where they are.
    pub dir: PathBuf,
}

const NEEDED: [&str; 5] = ["e2e.test", "ginkgo", "agnhost", "etcd", "kubectl"];

impl Peers {
    /// Finds all of them in `dir`, or says which are missing.
    pub fn find(dir: &Path) -> Result<Self> {
        let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !dir.join(name).is_file()).collect();
        if missing.is_empty() {
            return Ok(Self { dir: dir.canonicalize()? });
        }
        Err(format!("{}: {} missing; build Kubernetes' programs there first", dir.display(), missing.join(", ")).into())
    }

    /// Path of one.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Where the files lie that images are made of.
pub struct Parts {
    /// The directory.
    pub dir: PathBuf,
}

impl Parts {
    /// One file or directory of it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Debian packages of what specs run inside the images.
const PACKAGES: &str = "bind9-dnsutils,busybox-static,curl,iperf,iproute2,iputils-ping,netcat-openbsd,nginx-light,\
    procps,stress,wget";

/// Names that specs call and Debian's base has not: applets of busybox.
const APPLETS: [&str; 6] = ["ifconfig", "killall", "route", "telnet", "traceroute", "vi"];

/// nginx in the foreground, as the suite's images run it.
const NGINX: &str = "daemon off;\nuser www-data;\nworker_processes 1;\npid /run/nginx.pid;\nerror_log /dev/stderr \
    notice;\nevents { worker_connections 1024; }\nhttp {\n  include /etc/nginx/mime.types;\n  access_log \
    /dev/stdout;\n  server { listen 80; root /usr/share/nginx/html; index index.html; }\n}\n";

/// Specs look for this text.
const WELCOME: &str = "<!DOCTYPE html>\n<html><head><title>Welcome to nginx!</title></head>\n<body><h1>Welcome to \
    nginx!</h1></body></html>\n";

/// Waits for a signal and reaps children: what holds a pod's namespaces.
const PAUSE: &str = "#include <signal.h>\n#include <stdlib.h>\n#include <sys/wait.h>\n#include <unistd.h>\n\
    static void end(int s) { (void)s; _exit(0); }\n\
    static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0) {} }\n\
    int main(void) {\n  signal(SIGINT, end);\n  signal(SIGTERM, end);\n  signal(SIGCHLD, reap);\n\
    \x20 for (;;) pause();\n}\n";

/// A shell that keeps environment names such as `data-1`, which Debian's busybox drops, where a spec lists them.
const SHELL: &str = "#include <string.h>\n#include <unistd.h>\nint main(int n, char **a) {\n\
    \x20 if (n == 3 && !strcmp(a[1], \"-c\") && !strcmp(a[2], \"env\")) {\n\
    \x20   char *e[] = {\"env\", 0};\n    execv(\"/bin/env\", e);\n  }\n\
    \x20 execv(\"/bin/busybox\", a);\n  return 127;\n}\n";

/// Builds what is not in `dir` yet.
pub fn build(peers: &Peers, dir: &Path) -> Result<Parts> {
    std::fs::create_dir_all(dir)?;
    let parts = Parts { dir: dir.canonicalize()? };
    once(&parts, "base.tar", debian)?;
    once(&parts, "pause", |path| compile(path, PAUSE))?;
    once(&parts, "busybox", busybox)?;
    for (name, package) in [
        ("nnp", "k8s.io/kubernetes/test/images/nonewprivs"),
        ("consumer", "k8s.io/kubernetes/test/images/resource-consumer"),
        ("consume-cpu", "k8s.io/kubernetes/test/images/resource-consumer/consume-cpu"),
        ("sample-apiserver", "k8s.io/sample-apiserver"),
    ] {
        once(&parts, name, |path| go_build(peers, path, package))?;
    }
    once(&parts, "data", |path| suite_files(peers, path))?;
    for name in ["agnhost", "etcd"] {
        std::fs::copy(peers.program(name), parts.path(name))?;
    }
    Ok(parts)
}

/// Makes `name` under another name first, so that an interrupted run leaves nothing half done.
fn once(parts: &Parts, name: &str, make: impl FnOnce(&Path) -> Result) -> Result {
    let (path, unfinished) = (parts.path(name), parts.path(&format!("{name}.unfinished")));
    if path.exists() {
        return Ok(());
    }
    println!("making {name}");
    if unfinished.is_dir() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    make(&unfinished)?;
    Ok(std::fs::rename(&unfinished, &path)?)
}

/// A small Debian with the tools that specs run, as an archive.
fn debian(path: &Path) -> Result {
    if !on_path("debootstrap") {
        return Err("no debootstrap is on the path: `cargo xtask conformance` installs it".into());
    }
    let root = tempfile::tempdir_in(path.parent().unwrap_or(Path::new(".")))?;
    let mirrors = run(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]))?;
    let mirror = mirrors.lines().find(|line| !line.contains("security")).ok_or("apt has no Debian mirror")?;
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", &format!("--include={PACKAGES}"), "bookworm"]).arg(root.path()).arg(mirror);
    run(&mut command)?;
    let inside = |name: &str| root.path().join(name);
    for applet in APPLETS {
        let found = ["bin", "sbin", "usr/bin", "usr/sbin"].iter().any(|dir| inside(dir).join(applet).exists());
        if !found {
            std::os::unix::fs::symlink("/bin/busybox", inside("usr/bin").join(applet))?;
        }
    }
    std::fs::remove_file(inside("bin/sh"))?;
    std::os::unix::fs::symlink("bash", inside("bin/sh"))?;
    std::os::unix::fs::symlink("/usr/bin/iperf", inside("usr/local/bin/iperf"))?;
    for dir in ["uploads", "usr/share/nginx/html"] {
        std::fs::create_dir_all(inside(dir))?;
    }
    std::fs::write(inside("etc/nginx/nginx.conf"), NGINX)?;
    std::fs::write(inside("usr/share/nginx/html/index.html"), WELCOME)?;
    std::fs::write(inside("etc/hosts"), "")?;
    for name in ["etc/hostname", "etc/resolv.conf"] {
        if inside(name).exists() {
            std::fs::remove_file(inside(name))?;
        }
    }
    // Specs ask for this user and this group by name and number.
    let chroot = |line: &[&str]| run(Command::new("chroot").arg(root.path()).args(line));
    chroot(&["groupadd", "-g", "50000", "group-defined-in-image"])?;
    chroot(&["useradd", "-u", "1000", "-m", "user-defined-in-image"])?;
    chroot(&["usermod", "-aG", "group-defined-in-image", "user-defined-in-image"])?;
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*"]);
    tar.args(["--exclude=./usr/share/doc/*", "--exclude=./usr/share/man/*", "--exclude=./usr/share/locale/*"]);
    tar.args(["--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*", "-cf"]).arg(path);
    run(tar.arg("-C").arg(root.path()).arg(".")).map(|_| ())
}

fn compile(path: &Path, source: &str) -> Result {
    let file = path.with_extension("c");
    std::fs::write(&file, source)?;
    run(Command::new("gcc").args(["-Os", "-static", "-s", "-o"]).arg(path).arg(&file))?;
    Ok(std::fs::remove_file(file)?)
}

/// A root with every applet of Debian's static busybox.
fn busybox(path: &Path) -> Result {
    for dir in ["bin", "etc", "tmp", "root", "home", "dev", "proc", "sys", "var/spool/mail", "usr/sbin"] {
        std::fs::create_dir_all(path.join(dir))?;
    }
    run(Command::new("chmod").arg("1777").arg(path.join("tmp")))?;
    std::fs::copy("/bin/busybox", path.join("bin/busybox"))?;
    for applet in run(Command::new("/bin/busybox").arg("--list"))?.lines().filter(|name| *name != "busybox") {
        std::fs::hard_link(path.join("bin/busybox"), path.join("bin").join(applet))?;
    }
    std::fs::remove_file(path.join("bin/sh"))?;
    compile(&path.join("bin/sh"), SHELL)?;
    let users = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
                 nobody:x:65534:65534:nobody:/home:/bin/false\n";
    std::fs::write(path.join("etc/passwd"), users)?;
    Ok(std::fs::write(path.join("etc/group"), "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n")?)
}

/// The module in which peers were built: it pins all versions.
fn module(peers: &Peers) -> PathBuf {
    peers.dir.join("src/kubernetes")
}

fn go_build(peers: &Peers, path: &Path, package: &str) -> Result {
    // A copy: building other packages adds to go.sum.
    let copy = tempfile::tempdir()?;
    for name in ["go.mod", "go.sum"] {
        std::fs::copy(module(peers).join(name), copy.path().join(name))?;
    }
    std::fs::write(copy.path().join("parts.go"), "package parts\n")?;
    let mut go = Command::new("go");
    go.args(["build", "-mod=mod", "-ldflags", "-s -w", "-o"]).arg(path).arg(package);
    run(go.env("CGO_ENABLED", "0").current_dir(copy.path())).map(|_| ())
}

/// Files of the suite's own images.
fn suite_files(peers: &Peers, path: &Path) -> Result {
    let mut go = Command::new("go");
    go.args(["list", "-mod=mod", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]).current_dir(module(peers));
    let source = PathBuf::from(run(&mut go)?.trim()).join("test/images");
    std::fs::create_dir_all(path)?;
    for (from, to) in [
        ("nautilus/html/nautilus.jpg", "nautilus.jpg"),
        ("nautilus/html/data.json", "nautilus.json"),
        ("kitten/html/kitten.jpg", "kitten.jpg"),
        ("kitten/html/data.json", "kitten.json"),
        ("agnhost/porter/localhost.crt", "localhost.crt"),
        ("agnhost/porter/localhost.key", "localhost.key"),
    ] {
        // Copied as contents: the module cache is read-only, and so would be the copies.
        std::fs::write(path.join(to), std::fs::read(source.join(from))?)?;
    }
    Ok(())
}
