//! Volumes whose files are made from objects: ConfigMap, Secret, downwardAPI, tokens, and projections of several. Pure:
//! what files there are to be.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume};

use crate::pods::{
    downward::Downward,
    env::Sources,
    objects::{ObjectKey, ObjectKind},
    outcome::Failure,
    spec, token,
};

/// Files by their path in the volume.
pub type Contents = BTreeMap<String, File>;

/// A file's content and permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Permission bits, octal 0 to 0777.
    pub mode: u32,
    /// The user whose the file is, where that is not the agent's.
    pub owner: Option<u32>,
}

impl File {
    fn new(bytes: Vec<u8>, mode: u32) -> Self {
        Self { bytes, mode, owner: None }
    }
}

/// One source of a volume's files.
pub enum Projection<'a> {
    /// Keys of a ConfigMap or Secret.
    Object { kind: ObjectKind, name: &'a str, items: Option<&'a [KeyToPath]>, optional: bool },
    /// Fields of the pod itself.
    Downward(&'a [DownwardAPIVolumeFile]),
    /// A token of the pod's ServiceAccount.
    Token(&'a ServiceAccountTokenProjection),
    /// Of a kind that is not served.
    Unserved(&'static str),
}

impl Projection<'_> {
    /// Its files come from a Secret, or are one.
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Object { kind: ObjectKind::Secret, .. } | Self::Token(_))
    }
}

/// The projections of a volume and the mode of its files; `None` for a volume of another kind.
pub fn projections(volume: &Volume) -> Option<(Vec<Projection<'_>>, u32)> {
    const DEFAULT_MODE: i32 = 0o644;
    let mode = |mode: Option<i32>| u32::try_from(mode.unwrap_or(DEFAULT_MODE)).unwrap_or_default() & 0o777;
    if let Some(source) = &volume.config_map {
        let (items, optional) = (source.items.as_deref(), source.optional == Some(true));
        let one = Projection::Object { kind: ObjectKind::ConfigMap, name: &source.name, items, optional };
        return Some((vec![one], mode(source.default_mode)));
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let (items, optional) = (source.items.as_deref(), source.optional == Some(true));
        let one = Projection::Object { kind: ObjectKind::Secret, name, items, optional };
        return Some((vec![one], mode(source.default_mode)));
    }
    if let Some(source) = &volume.downward_api {
        return Some((
            vec![Projection::Downward(source.items.as_deref().unwrap_or_default())],
            mode(source.default_mode),
        ));
    }
    let source = volume.projected.as_ref()?;
    let projections = source.sources.iter().flatten().map(|source| {
        if let Some(source) = &source.config_map {
            let (items, optional) = (source.items.as_deref(), source.optional == Some(true));
            Projection::Object { kind: ObjectKind::ConfigMap, name: &source.name, items, optional }
        } else if let Some(source) = &source.secret {
            let (items, optional) = (source.items.as_deref(), source.optional == Some(true));
            Projection::Object { kind: ObjectKind::Secret, name: &source.name, items, optional }
        } else if let Some(source) = &source.downward_api {
            Projection::Downward(source.items.as_deref().unwrap_or_default())
        } else if let Some(source) = &source.service_account_token {
            Projection::Token(source)
        } else {
            Projection::Unserved("source")
        }
    });
    Some((projections.collect(), mode(source.default_mode)))
}

/// What has to be read before [`contents`] can answer.
pub fn references(pod: &Pod, projections: &[Projection<'_>]) -> Vec<ObjectKey> {
    let namespace = spec::pod_ref(pod).namespace;
    let keys = projections.iter().filter_map(|projection| match projection {
        Projection::Object { kind, name, .. } => {
            Some(ObjectKey { kind: *kind, namespace: namespace.clone(), name: (*name).to_owned() })
        }
        Projection::Token(source) => Some(token::key(pod, source)),
        Projection::Downward(_) | Projection::Unserved(_) => None,
    });
    keys.collect()
}

/// The files of a volume; later projections win.
pub fn contents(
    projections: &[Projection<'_>],
    default_mode: u32,
    sources: &Sources,
    downward: &Downward<'_>,
) -> Result<Contents, Failure> {
    let failed = |message: String| Failure::new("FailedMount", message);
    let mut contents = Contents::new();
    for projection in projections {
        match projection {
            Projection::Unserved(kind) => return Err(failed(format!("this cluster serves no projected {kind}"))),
            Projection::Downward(items) => {
                for item in *items {
                    let field = item.field_ref.as_ref().and_then(|field| downward.field(&field.field_path));
                    let resource = || item.resource_field_ref.as_ref().and_then(|resource| downward.resource(resource));
                    let value = field
                        .or_else(resource)
                        .ok_or_else(|| failed(format!("the source of {:?} is not known", item.path)))?;
                    contents.insert(safe(&item.path)?, File::new(value.into_bytes(), mode(item.mode, default_mode)));
                }
            }
            Projection::Token(source) => {
                let key = token::key(downward.pod, source);
                let payload = sources.get(&key).cloned().flatten();
                let bytes = payload.and_then(|payload| payload.data.get(token::TOKEN).cloned());
                let bytes = bytes.ok_or_else(|| failed(format!("there is no {key}")))?;
                let owner = only_user(downward.pod);
                let shared = owner.is_some() || has_group(downward.pod);
                let mode = if shared { 0o600 } else { default_mode };
                contents.insert(safe(&source.path)?, File { bytes, mode, owner });
            }
            Projection::Object { kind, name, items, optional } => {
                let namespace = spec::pod_ref(downward.pod).namespace;
                let key = ObjectKey { kind: *kind, namespace, name: (*name).to_owned() };
                let Some(payload) = sources.get(&key).cloned().flatten() else {
                    if *optional {
                        continue;
                    }
                    return Err(Failure { awaits: Some(key.clone()), ..failed(format!("{key} not found")) });
                };
                let Some(items) = items.filter(|items| !items.is_empty()) else {
                    let all = payload
                        .data
                        .iter()
                        .map(|(key, bytes)| Ok((safe(key)?, File::new(bytes.clone(), default_mode))));
                    contents.extend(all.collect::<Result<Vec<_>, Failure>>()?);
                    continue;
                };
                for item in items {
                    match payload.data.get(&item.key) {
                        Some(bytes) => {
                            let file = File::new(bytes.clone(), mode(item.mode, default_mode));
                            contents.insert(safe(&item.path)?, file);
                        }
                        None if *optional => {}
                        None => {
                            let message = format!("{key} references non-existent key: {}", item.key);
                            return Err(Failure { awaits: Some(key.clone()), ..failed(message) });
                        }
                    }
                }
            }
        }
    }
    Ok(contents)
}

/// The one user whom all containers of a pod run as, if the pod says so: a token is that user's.
fn only_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|security| security.run_as_user);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users = containers.map(|container| {
        let own = container.security_context.as_ref().and_then(|security| security.run_as_user);
        own.or(of_pod)
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

fn has_group(pod: &Pod) -> bool {
    let security = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    security.is_some_and(|security| security.fs_group.is_some())
}

fn mode(own: Option<i32>, default: u32) -> u32 {
    own.and_then(|mode| u32::try_from(mode).ok()).map_or(default, |mode| mode & 0o777)
}

/// Refuses a path that leads out of its volume, or that is named as updates name their directories.
fn safe(path: &str) -> Result<String, Failure> {
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.split('/').any(|part| part.is_empty() || part == "." || part.starts_with(".."));
    if bad {
        Err(Failure::new("FailedMount", format!("invalid path {path:?} in a volume")))
    } else {
        Ok(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use serde_json::{Value, json};

    use super::*;
    use crate::pods::objects::Payload;

    fn made(volume: Value) -> Result<Vec<(String, String, u32)>, Failure> {
        let mut volume = volume;
        volume["name"] = "v".into();
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "a" } })).unwrap();
        let key = |kind, name: &str| ObjectKey { kind, namespace: "a".into(), name: name.into() };
        let payload = |pairs: &[(&str, &str)]| {
            let data = pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
            Some(Arc::new(Payload { data, ..Default::default() }))
        };
        let sources = Sources::from([
            (key(ObjectKind::ConfigMap, "c"), payload(&[("one", "1"), ("two", "2")])),
            (key(ObjectKind::Secret, "s"), payload(&[("pass", "x")])),
        ]);
        let downward =
            Downward { pod: &pod, container: None, pod_ip: None, node_ip: Ipv4Addr::LOCALHOST, cpus: 1, memory: 1 };
        let (projections, mode) = projections(&volume).unwrap();
        let contents = contents(&projections, mode, &sources, &downward)?;
        Ok(contents.into_iter().map(|(path, file)| (path, String::from_utf8(file.bytes).unwrap(), file.mode)).collect())
    }

    fn file(path: &str, text: &str, mode: u32) -> (String, String, u32) {
        (path.to_owned(), text.to_owned(), mode)
    }

    #[test]
    fn all_keys_are_files_unless_items_choose_and_place_them() {
        assert_eq!(
            made(json!({ "configMap": { "name": "c" } })).unwrap(),
            [file("one", "1", 0o644), file("two", "2", 0o644)]
        );
        let items = json!([{ "key": "two", "path": "deep/2", "mode": 0o400 }]);
        assert_eq!(
            made(json!({ "configMap": { "name": "c", "items": items } })).unwrap(),
            [file("deep/2", "2", 0o400)]
        );
        assert_eq!(
            made(json!({ "secret": { "secretName": "s", "defaultMode": 0o600 } })).unwrap(),
            [file("pass", "x", 0o600)]
        );
    }

    #[test]
    fn several_sources_share_one_volume() {
        let sources = json!([
            { "configMap": { "name": "c", "items": [{ "key": "one", "path": "a" }] } },
            { "secret": { "name": "s" } },
            { "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } },
        ]);
        let expected = [file("a", "1", 0o644), file("name", "p", 0o644), file("pass", "x", 0o644)];
        assert_eq!(made(json!({ "projected": { "sources": sources } })).unwrap(), expected);
    }

    #[test]
    fn a_token_belongs_to_who_runs_the_containers() {
        let source = ServiceAccountTokenProjection { path: "token".into(), ..ServiceAccountTokenProjection::default() };
        let made = |spec: Value| {
            let pod = json!({"metadata": {"name": "p", "namespace": "a", "uid": "u"}, "spec": spec});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let data = [(token::TOKEN.to_owned(), b"t".to_vec())].into();
            let payload = Payload { data, ..Payload::default() };
            let sources = Sources::from([(token::key(&pod, &source), Some(Arc::new(payload)))]);
            let downward =
                Downward { pod: &pod, container: None, pod_ip: None, node_ip: Ipv4Addr::LOCALHOST, cpus: 1, memory: 1 };
            let projections = [Projection::Token(&source)];
            assert!(projections[0].is_secret());
            assert!(contents(&projections, 0o644, &Sources::new(), &downward).is_err(), "without the token");
            let file = contents(&projections, 0o644, &sources, &downward).unwrap().remove("token").unwrap();
            assert_eq!(file.bytes, b"t");
            (file.mode, file.owner)
        };
        let two =
            |a: Value, b: Value| json!([{"name": "a", "securityContext": a}, {"name": "b", "securityContext": b}]);
        let user = |id: i64| json!({"runAsUser": id});
        assert_eq!(made(json!({"containers": two(json!({}), json!({}))})), (0o644, None));
        assert_eq!(made(json!({"containers": two(user(7), user(7))})), (0o600, Some(7)));
        assert_eq!(made(json!({"containers": two(user(7), user(8))})), (0o644, None));
        assert_eq!(made(json!({"containers": two(user(7), json!({}))})), (0o644, None));
        assert_eq!(made(json!({"containers": two(user(7), json!({})), "securityContext": user(7)})), (0o600, Some(7)));
        let group = json!({"fsGroup": 9});
        assert_eq!(made(json!({"containers": two(json!({}), json!({})), "securityContext": group})), (0o600, None));
    }

    #[test]
    fn what_is_missing_fails_unless_it_is_optional_and_no_path_leads_out() {
        assert_eq!(
            made(json!({ "configMap": { "name": "none" } })).unwrap_err().message,
            "configmap \"none\" not found"
        );
        assert_eq!(made(json!({ "configMap": { "name": "none", "optional": true } })).unwrap(), []);
        let items = json!([{ "key": "one", "path": "../../etc/passwd" }]);
        assert!(made(json!({ "configMap": { "name": "c", "items": items } })).is_err());
    }
}
