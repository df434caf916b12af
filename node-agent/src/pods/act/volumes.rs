//! Makes a pod's files and volumes, and keeps those made from objects as the objects are.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::{Pod, Volume};
use tokio::sync::watch;

use super::uid;
use crate::pods::{
    Context,
    downward::Downward,
    env::Sources,
    mounted_file,
    names::{self, ResolvConf},
    objects::{ObjectKey, ReadError, Watched},
    outcome::Failure,
    recorder::EventType,
    spec,
    volumes::{self, GroupAccess, Kind},
};

/// Makes all volumes of `pod`, and its hosts and resolver files.
pub async fn mount(context: &Context, pod: &Pod) -> Result<(), Failure> {
    let result = try_mount(context, pod).await;
    if let Err(failure) = &result {
        context.recorder.record(pod, None, EventType::Warning, "FailedMount", &failure.message);
    }
    result
}

async fn try_mount(context: &Context, pod: &Pod) -> Result<(), Failure> {
    let directory = context.pod_dir(&uid(pod));
    prepare(context, pod, &directory)
        .map_err(|error| Failure::new("FailedMount", format!("prepare the pod's files: {error}")))?;
    let sources = read(context, volumes::referenced(pod)).await;
    let sources = sources.map_err(|error| Failure::new("FailedMount", error.to_string()))?;
    volumes_of(pod).try_for_each(|volume| write(context, pod, volume, &sources))
}

/// Updates the files that are made from objects, or from the pod's labels and annotations, whenever these change, until
/// dropped. Returns at once where the pod has no such files.
pub async fn follow(context: &Context, mut pods: watch::Receiver<Arc<Pod>>) {
    let pod = pods.borrow_and_update().clone();
    let watched: Vec<(ObjectKey, Arc<Watched>)> =
        volumes::referenced(&pod).into_iter().map(|key| (key.clone(), context.objects.watch(&key))).collect();
    let has_files = |volume: &Volume| matches!(volumes::kind(volume), Ok(Kind::Files { .. }));
    if !volumes_of(&pod).any(has_files) {
        return;
    }
    loop {
        // Asked for before the objects are read: a change between is not missed.
        let mut changes: FuturesUnordered<_> = watched.iter().map(|(_, one)| one.changes()).collect();
        let mut sources = Sources::new();
        for (key, one) in &watched {
            if let Ok(payload) = one.read().await {
                sources.insert(key.clone(), payload);
            }
        }
        let pod = pods.borrow_and_update().clone();
        let mut failed = false;
        for volume in volumes_of(&pod).filter(|volume| has_files(volume)) {
            if let Err(failure) = write(context, &pod, volume, &sources) {
                tracing::warn!(volume = volume.name, message = failure.message, "a volume keeps its files");
                failed = true;
            }
        }
        tokio::select! {
            Some(()) = changes.next() => {}
            () = tokio::time::sleep(WRITE_AGAIN), if failed => {}
            changed = pods.changed() => if changed.is_err() { return },
        }
    }
}

fn volumes_of(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// How soon files that could not be written are written again.
const WRITE_AGAIN: Duration = Duration::from_secs(30);
/// How long an object is waited for while the API does not answer.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// Reads `keys` as they are now.
pub async fn read(context: &Context, keys: Vec<ObjectKey>) -> Result<Sources, ReadError> {
    let mut sources = Sources::new();
    for key in keys {
        let watched = context.objects.watch(&key);
        let payload = tokio::time::timeout(READ_LIMIT, watched.read()).await;
        let payload = payload.map_err(|_| ReadError::NoAnswer { key: key.clone(), limit: READ_LIMIT })??;
        sources.insert(key, payload);
    }
    Ok(sources)
}

/// What the pod's files need not wait for: the hosts file gets its contents with the address.
fn prepare(context: &Context, pod: &Pod, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    match fs::File::create_new(directory.join("hosts")) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let config = &context.config;
    let host = fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    let resolver = names::resolver(pod, config.cluster_dns, &config.cluster_domain, &ResolvConf::parse(&host));
    mounted_file::replace(&directory.join("resolv.conf"), resolver.to_string().as_bytes())
}

/// Makes a volume as it should be, or brings its files up to date.
fn write(context: &Context, pod: &Pod, volume: &Volume, sources: &Sources) -> Result<(), Failure> {
    let directory = volumes::volumes_dir(&context.pod_dir(&uid(pod))).join(&volume.name);
    let security = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let group = security.and_then(|security| security.fs_group).and_then(|group| u32::try_from(group).ok());
    let failed = |message: String| {
        Failure::new("FailedMount", format!("MountVolume.SetUp failed for volume {:?} : {message}", volume.name))
    };
    let io = |error: io::Error| failed(error.to_string());
    match volumes::kind(volume)? {
        Kind::HostPath { path, kind } => {
            volumes::check_host_path(Path::new(path), kind).map_err(|failure| failed(failure.message))?
        }
        Kind::EmptyDir { in_memory, limit } => {
            fs::create_dir_all(&directory).map_err(io)?;
            if in_memory {
                volumes::mount_memory(&directory, limit).map_err(io)?;
            }
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).map_err(io)?;
            group.map_or(Ok(()), |group| volumes::set_group(&directory, group, GroupAccess::Write)).map_err(io)?;
        }
        Kind::Files { projections, default_mode, secret } => {
            let downward = downward(context, pod);
            let contents = volumes::contents(&projections, default_mode, sources, &downward)
                .map_err(|failure| Failure { awaits: failure.awaits.clone(), ..failed(failure.message) })?;
            fs::create_dir_all(&directory).map_err(io)?;
            if secret {
                volumes::mount_memory(&directory, None).map_err(io)?;
            }
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).map_err(io)?;
            volumes::write_atomically(&directory, &contents, group).map_err(io)?;
        }
    }
    Ok(())
}

fn downward<'a>(context: &Context, pod: &'a Pod) -> Downward<'a> {
    let machine = context.machine;
    Downward {
        pod,
        container: spec::app_containers(pod).next(),
        pod_ip: None,
        node_ip: context.config.node_ip,
        cpus: machine.cpus,
        memory: machine.memory,
    }
}
