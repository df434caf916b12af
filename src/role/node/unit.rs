//! The systemd unit of a node. Pure.

use std::path::Path;

/// Name of the unit.
pub const UNIT_NAME: &str = "fairlead-node.service";
/// Where systemd looks for the units of an administrator.
pub const UNIT_PATH: &str = "/etc/systemd/system/fairlead-node.service";

/// The unit's text. `Delegate` and `KillMode=process` leave the pods alone when the agent is restarted. Without a limit
/// of starts systemd never gives a node up: what it waits for, Docker or a full disk, may come back after minutes.
pub fn unit(binary: &Path, config: &Path) -> String {
    format!(
        "[Unit]
Description=fairlead node agent
Documentation=https://kubernetes.io/docs/concepts/architecture/nodes/
Wants=network-online.target
After=network-online.target docker.service
StartLimitIntervalSec=0

[Service]
Type=simple
ExecStart={} node run --config {}
KillMode=process
Delegate=yes
Restart=always
RestartSec=1
LimitNOFILE=1048576
TasksMax=infinity

[Install]
WantedBy=multi-user.target
",
        quote(binary),
        quote(config)
    )
}

/// systemd.syntax(7): `%` and `$` are expanded, blanks separate words.
fn quote(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%").replace('$', "$$");
    if text.contains(char::is_whitespace) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn systemd_accepts_the_unit() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join(UNIT_NAME);
        std::fs::write(&path, unit(Path::new("/bin/true"), Path::new("/etc/fairlead/node.yaml"))).expect("writable");
        let output = match Command::new("systemd-analyze").arg("verify").arg(&path).output() {
            Ok(output) => output,
            Err(error) => {
                return crate::skipped::skipped(format_args!("systemd-analyze cannot be run: {error}"));
            }
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let about_us: Vec<&str> = said.lines().filter(|line| line.contains("fairlead")).collect();
        assert!(about_us.is_empty(), "{about_us:?}");
        assert!(output.status.success() || !said.contains("fairlead"), "{said}");
    }

    #[test]
    fn a_node_is_started_for_as_long_as_it_takes() {
        let text = unit(Path::new("/bin/true"), Path::new("/etc/fairlead/node.yaml"));
        let (head, service) = text.split_once("[Service]").expect("two sections");
        assert!(head.contains("\nStartLimitIntervalSec=0\n"), "systemd gives up after 5 starts in 10 s: {head}");
        assert!(service.contains("\nRestart=always\n"), "{service}");
    }

    #[test]
    fn a_path_with_blanks_is_quoted() {
        assert!(
            unit(Path::new("/opt/my tools/fairlead"), Path::new("/c"))
                .contains("ExecStart=\"/opt/my tools/fairlead\" node run --config /c")
        );
    }
}
