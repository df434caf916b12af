//! Termination messages: what a container says of its end, in a file of its own or in its log.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;

use crate::{
    pods::{Context, mounted_file, spec},
    runtime::{Container, LogChunk, LogOptions, Role, State},
};

/// What an ended container left in its file, or at the end of its log where it asked for that; `None` for one that has
/// not ended.
pub async fn of(context: &Context, pod: &Pod, container: Option<&Container>) -> Option<String> {
    const LIMIT: u64 = 4096;
    const LOG_LIMIT: usize = 2048;
    const LOG_WAIT: Duration = Duration::from_secs(10);
    let container = container?;
    let (Role::Container { name, .. }, State::Exited(exit)) = (&container.owner.role, &container.state) else {
        return None;
    };
    let directory = context.pod_dir(&super::uid(pod));
    let left = read_end(&file(&directory, name, container.owner.attempt), LIMIT).unwrap_or_default();
    let left = String::from_utf8_lossy(&left).into_owned();
    let container_spec = spec::any_container(pod, name);
    let policy = container_spec.as_deref().and_then(|container| container.termination_message_policy.as_deref());
    if !left.is_empty() || policy != Some("FallbackToLogsOnError") || exit.code == 0 {
        return Some(left).filter(|left| !left.is_empty());
    }
    let options = LogOptions { tail: Some(80), ..Default::default() };
    let chunks = context.runtime.logs(&container.id, &options).collect::<Vec<_>>();
    let chunks = tokio::time::timeout(LOG_WAIT, chunks).await.unwrap_or_default();
    let bytes: Vec<u8> = chunks
        .into_iter()
        .flatten()
        .flat_map(|chunk| match chunk {
            LogChunk::Stdout(bytes) | LogChunk::Stderr(bytes) => bytes,
        })
        .collect();
    Some(String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_LIMIT)..]).into_owned())
        .filter(|log| !log.is_empty())
}

/// The file of one instance of a container, which sees it at its `terminationMessagePath`.
pub fn file(directory: &Path, container: &str, attempt: u32) -> PathBuf {
    directory.join("containers").join(container).join(format!("{attempt}.message"))
}

/// The last `limit` bytes of a file, which a container may have made as long as it likes.
fn read_end(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = mounted_file::open(fs::OpenOptions::new().read(true), path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut end = Vec::new();
    file.take(limit).read_to_end(&mut end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_termination_message_the_end_is_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // Sparse: reading all of it would take more memory than there is.
        file.as_file().set_len(1 << 33).unwrap();
        assert_eq!(read_end(file.path(), 4096).unwrap(), [0; 4096]);
        fs::write(file.path(), "why").unwrap();
        assert_eq!(read_end(file.path(), 4096).unwrap(), b"why");
        assert_eq!(read_end(file.path(), 2).unwrap(), b"hy");
    }
}
