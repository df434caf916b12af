//! Images made here, from Debian's static busybox: nothing is pulled from outside.

use std::path::{Path, PathBuf};

use super::{Result, docker::Docker};

/// Builds the test image's file system once and imports it into engines under any name.
pub struct Images {
    archive: PathBuf,
}

/// The image most tests use.
pub const WEB: &str = "fairlead.test/web:1";

/// Answers every request with the pod's name; what a container of the image runs unless told otherwise.
const SERVE: &str = "#!/bin/sh\nmkdir -p /www/cgi-bin\nprintf '%s\\n' \"$HOSTNAME\" > /www/index.html\n\
    exec httpd -f -p \"${PORT:-8080}\" -h /www\n";

/// Who asked, as the server sees it: `cgi-bin/who`.
const WHO: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s %s\\n' \"$(hostname)\" \"$REMOTE_ADDR\"\n";

impl Images {
    pub fn build(dir: &Path) -> Result<Self> {
        let archive = dir.join("web.tar");
        let mut tar = tar::Builder::new(std::fs::File::create(&archive)?);
        let busybox = std::fs::read("/bin/busybox")
            .map_err(|error| format!("/bin/busybox: {error}; Debian's busybox-static has it"))?;
        let mut file = |path: &str, mode: u32, bytes: &[u8]| -> Result {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(mode);
            Ok(tar.append_data(&mut header, path, bytes)?)
        };
        file("bin/busybox", 0o755, &busybox)?;
        file("bin/serve", 0o755, SERVE.as_bytes())?;
        file("www/cgi-bin/who", 0o755, WHO.as_bytes())?;
        file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")?;
        file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
        file("tmp/.keep", 0o644, b"")?;
        for applet in APPLETS {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
        }
        tar.into_inner()?.sync_all()?;
        Ok(Self { archive })
    }

    /// Imports the image into `docker` as `name`.
    pub fn import(&self, docker: &Docker, name: &str) -> Result {
        let archive = self.archive.display().to_string();
        let path = "ENV PATH=/bin";
        docker.cli(&["import", "--change", "CMD [\"/bin/serve\"]", "--change", path, &archive, name])?;
        Ok(())
    }
}

const APPLETS: &[&str] = &[
    "sh",
    "cat",
    "ls",
    "echo",
    "sleep",
    "httpd",
    "wget",
    "timeout",
    "nc",
    "nslookup",
    "hostname",
    "ip",
    "ping",
    "env",
    "true",
    "false",
    "mkdir",
    "printf",
    "head",
    "tail",
    "grep",
    "touch",
    "kill",
    "ps",
    "date",
    "seq",
    "test",
    "stat",
    "id",
    "traceroute",
    "rm",
    "netstat",
    "wc",
    "sort",
    "uniq",
    "tr",
    "cut",
    "dd",
    "md5sum",
    "mount",
    "stty",
    "tar",
];
