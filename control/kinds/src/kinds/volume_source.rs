//! What stands behind a volume of a pod or a PersistentVolume: a table of the types there are, and the rules of those
//! that both have. A volume has one type exactly.

use serde_json::{Value, json};

use super::{
    FieldError,
    field::child,
    names,
    pod::defaults::{fill, fill_text},
    reading::{entries, is_empty, items, number, text},
};

/// One type of volume.
pub struct VolumeType {
    /// The field of the volume: `hostPath`.
    pub field: &'static str,
    /// What Kubernetes names the field where it refuses a second type, and where it refuses the content. They differ
    /// from the field for some of the oldest types.
    pub shown: (&'static str, &'static str),
    /// Reasons against the content, at its path.
    pub validate: fn(path: &str, source: &Value) -> Vec<FieldError>,
    /// Whether it may stand beside another type: Kubernetes forgets to forbid it.
    pub beside_others: bool,
}

impl VolumeType {
    /// A type that is shown as it is spelled.
    pub const fn new(field: &'static str, validate: fn(&str, &Value) -> Vec<FieldError>) -> Self {
        Self { field, shown: (field, field), validate, beside_others: false }
    }
}

/// Of pods and of PersistentVolumes, where they do not differ.
pub const HOST_PATH: VolumeType = VolumeType::new("hostPath", host_path);
/// See [`HOST_PATH`].
pub const GCE: VolumeType = VolumeType {
    shown: ("gcePersistentDisk", "persistentDisk"),
    ..VolumeType::new("gcePersistentDisk", |path, disk| partitioned(path, disk, "pdName"))
};
/// See [`HOST_PATH`].
pub const AWS: VolumeType = VolumeType::new("awsElasticBlockStore", |path, disk| partitioned(path, disk, "volumeID"));
/// See [`HOST_PATH`].
pub const NFS: VolumeType = VolumeType::new("nfs", nfs);
/// See [`HOST_PATH`].
pub const FLOCKER: VolumeType = VolumeType::new("flocker", flocker);
/// See [`HOST_PATH`].
pub const RBD: VolumeType = VolumeType::new("rbd", |path, rbd| {
    required_list(path, rbd, "monitors").into_iter().chain(required(path, rbd, &["image"])).collect()
});
/// See [`HOST_PATH`].
pub const CEPHFS: VolumeType = VolumeType {
    shown: ("cephFS", "cephfs"),
    ..VolumeType::new("cephfs", |path, ceph| required_list(path, ceph, "monitors").into_iter().collect())
};
/// See [`HOST_PATH`].
pub const QUOBYTE: VolumeType = VolumeType::new("quobyte", quobyte);
/// See [`HOST_PATH`].
pub const FC: VolumeType = VolumeType::new("fc", fibre_channel);
/// See [`HOST_PATH`].
pub const FLEX: VolumeType = VolumeType::new("flexVolume", flex);
/// See [`HOST_PATH`].
pub const VSPHERE: VolumeType = VolumeType::new("vsphereVolume", |path, disk| required(path, disk, &["volumePath"]));
/// See [`HOST_PATH`].
pub const PHOTON: VolumeType = VolumeType::new("photonPersistentDisk", |path, disk| required(path, disk, &["pdID"]));
/// See [`HOST_PATH`].
pub const PORTWORX: VolumeType = VolumeType::new("portworxVolume", |path, disk| required(path, disk, &["volumeID"]));
/// See [`HOST_PATH`].
pub const AZURE_DISK: VolumeType = VolumeType::new("azureDisk", azure_disk);
/// See [`HOST_PATH`].
pub const SCALE_IO: VolumeType =
    VolumeType::new("scaleIO", |path, disk| required(path, disk, &["gateway", "system", "volumeName"]));

/// Reasons against a volume whose type must be one of `types`.
pub fn one_of(path: &str, volume: &Value, types: &[VolumeType]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut found = false;
    for kind in types.iter().filter(|kind| !volume[kind.field].is_null()) {
        if found && !kind.beside_others {
            let why = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(format!("{path}.{}", kind.shown.0), why));
        } else {
            errors.extend((kind.validate)(&child(path, kind.shown.1), &volume[kind.field]));
        }
        found = true;
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    errors
}

/// Fills in what is missing in a volume of a type that pods and PersistentVolumes have.
pub fn default(volume: &mut Value) {
    let texts: [(&str, &[(&str, &str)]); 3] = [
        ("iscsi", &[("iscsiInterface", "default")]),
        ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
        ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
    ];
    for (kind, fields) in texts {
        if let Some(source) = volume.get_mut(kind) {
            fields.iter().for_each(|(field, value)| fill_text(source, field, value));
        }
    }
    if let Some(path) = volume.get_mut("hostPath") {
        fill(path, "type", || json!(""));
    }
    if let Some(disk) = volume.get_mut("azureDisk") {
        for (field, value) in [("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")] {
            fill(disk, field, || json!(value));
        }
        fill(disk, "readOnly", || json!(false));
    }
}

/// The texts that must be there.
pub fn required(path: &str, source: &Value, fields: &[&str]) -> Vec<FieldError> {
    let missing = |field: &&str| FieldError::missing(format!("{path}.{field}"), &source[*field]);
    fields.iter().filter_map(missing).collect()
}

fn required_list(path: &str, source: &Value, field: &str) -> Option<FieldError> {
    is_empty(&source[field]).then(|| FieldError::required(format!("{path}.{field}"), ""))
}

/// Why a path goes up where it may only go down.
pub fn backsteps(path: &str, value: &Value) -> Option<FieldError> {
    let text = value.as_str().unwrap_or_default();
    text.split('/').any(|part| part == "..").then(|| FieldError::invalid(path, value, "must not contain '..'"))
}

/// Why a path does not stay below where it starts.
pub fn descending(path: &str, value: &Value) -> Vec<FieldError> {
    let absolute = value.as_str().unwrap_or_default().starts_with('/');
    let absolute = absolute.then(|| FieldError::invalid(path, value, "must be a relative path"));
    absolute.into_iter().chain(backsteps(path, value)).collect()
}

fn host_path(path: &str, source: &Value) -> Vec<FieldError> {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if text(source, "path").is_empty() {
        return vec![FieldError::required(format!("{path}.path"), "")];
    }
    let steps = backsteps(&format!("{path}.path"), &source["path"]);
    steps.into_iter().chain(FieldError::unsupported(format!("{path}.type"), &source["type"], &TYPES)).collect()
}

fn partitioned(path: &str, disk: &Value, name: &str) -> Vec<FieldError> {
    let mut errors = required(path, disk, &[name]);
    if !(0..=255).contains(&number(disk, "partition")) {
        let why = "must be between 1 and 255, inclusive";
        errors.push(FieldError::invalid(format!("{path}.partition"), &disk["partition"], why));
    }
    errors
}

fn nfs(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = required(path, source, &["server", "path"]);
    if !text(source, "path").starts_with('/') {
        let value = json!(text(source, "path"));
        errors.push(FieldError::invalid(format!("{path}.path"), &value, "must be an absolute path"));
    }
    errors
}

fn flocker(path: &str, source: &Value) -> Vec<FieldError> {
    let (name, uuid) = (text(source, "datasetName"), text(source, "datasetUUID"));
    let mut errors = Vec::new();
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required")),
        (false, false) => {
            let why = "datasetName and datasetUUID can not be specified simultaneously";
            errors.push(FieldError::invalid(path, &json!("resource"), why));
        }
        _ => {}
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(format!("{path}.datasetName"), &json!(name), "must not contain '/'"));
    }
    errors
}

fn quobyte(path: &str, source: &Value) -> Vec<FieldError> {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = text(source, "registry");
    let mut errors = Vec::new();
    if registry.is_empty() {
        errors.push(FieldError::required(format!("{path}.registry"), PAIRS));
    } else if text(source, "tenant").len() >= 65 {
        let why = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(format!("{path}.tenant"), why));
    } else {
        let pair =
            |pair: &str| pair.rsplit_once(':').is_some_and(|(host, _)| host.starts_with('[') || !host.contains(':'));
        let wrong = registry.split(',').filter(|text| !pair(text));
        errors.extend(wrong.map(|_| FieldError::invalid(format!("{path}.registry"), &source["registry"], PAIRS)));
    }
    errors.extend(required(path, source, &["volume"]));
    errors
}

fn fibre_channel(path: &str, source: &Value) -> Vec<FieldError> {
    let (names, ids) = (&source["targetWWNs"], &source["wwids"]);
    let path_of_names = format!("{path}.targetWWNs");
    let mut errors = Vec::new();
    match (is_empty(names), is_empty(ids)) {
        (true, true) => {
            let why = "must specify either targetWWNs or wwids, but not both";
            errors.push(FieldError::required(path_of_names, why));
        }
        (false, false) => {
            let why = "targetWWNs and wwids can not be specified simultaneously";
            errors.push(FieldError::invalid(path_of_names, names, why));
        }
        _ => {}
    }
    if !is_empty(names) {
        let lun = &source["lun"];
        if lun.is_null() {
            let why = "lun is required if targetWWNs is specified";
            errors.push(FieldError::required(format!("{path}.lun"), why));
        }
        errors.extend(lun_out_of_range(path, lun));
    }
    errors
}

/// Why a number is no logical unit.
pub fn lun_out_of_range(path: &str, lun: &Value) -> Option<FieldError> {
    let wrong = lun.as_i64().is_some_and(|lun| !(0..=255).contains(&lun));
    wrong.then(|| FieldError::invalid(format!("{path}.lun"), lun, "must be between 0 and 255, inclusive"))
}

fn flex(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = required(path, source, &["driver"]);
    for (key, _) in entries(&source["options"]) {
        let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace).to_lowercase();
        let namespace = format!(".{namespace}");
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(format!("{path}.options[{key}]"), &json!(key), why));
        }
    }
    errors
}

fn azure_disk(path: &str, disk: &Value) -> Vec<FieldError> {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    let mut errors = required(path, disk, &["diskName", "diskURI"]);
    let modes = ["None", "ReadOnly", "ReadWrite"];
    errors.extend(FieldError::unsupported(format!("{path}.cachingMode"), &disk["cachingMode"], &modes));
    errors.extend(FieldError::unsupported(format!("{path}.kind"), &disk["kind"], &["Dedicated", "Managed", "Shared"]));
    let uri = text(disk, "diskURI");
    let supported = match disk["kind"].as_str() {
        Some("Managed") if !uri.starts_with("/subscriptions/") => Some(MANAGED),
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => Some(BLOB),
        _ => None,
    };
    errors.extend(supported.map(|form| FieldError::not_supported(format!("{path}.diskURI"), &json!(uri), &[form])));
    errors
}

/// Reasons against an iSCSI target. `starts` is what Kubernetes says of a name that does not begin as one.
pub fn iscsi(path: &str, source: &Value, starts: &str) -> Vec<FieldError> {
    let mut errors = required(path, source, &["targetPortal", "iqn"]);
    let qualified = |field: &str, value: &Value| {
        let name = value.as_str().filter(|name| !name.is_empty())?;
        let why = match name.get(..3) {
            Some("iqn") if is_iqn(name) => return None,
            Some("eui") if is_identifier(name, 16) => return None,
            Some("naa") if is_identifier(name, 32) => return None,
            Some("iqn" | "eui" | "naa") => "must be valid format",
            _ => starts,
        };
        Some(FieldError::invalid(format!("{path}.{field}"), value, why))
    };
    errors.extend(qualified("iqn", &source["iqn"]));
    errors.extend(lun_out_of_range(path, &source["lun"]));
    if (source["chapAuthDiscovery"] == true || source["chapAuthSession"] == true) && source["secretRef"].is_null() {
        errors.push(FieldError::required(format!("{path}.secretRef"), ""));
    }
    errors.extend(qualified("initiatorname", &source["initiatorName"]));
    errors
}

/// `iqn.2001-04.com.example:storage.disk1`
fn is_iqn(name: &str) -> bool {
    let Some((authority, rest)) = name.strip_prefix("iqn.").and_then(|name| name.split_once(':')) else { return false };
    let Some((date, domain)) = authority.split_once('.') else { return false };
    let digits = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    date.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2))
        && !domain.is_empty()
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        && !rest.is_empty()
        && !rest.contains(|c: char| ",;*&$|".contains(c) || c.is_ascii_whitespace())
}

/// `eui.` or `naa.` and so many letters and digits.
fn is_identifier(name: &str, length: usize) -> bool {
    name.get(4..).is_some_and(|rest| rest.len() == length && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Reasons against a volume of StorageOS, of a pod or a PersistentVolume.
pub fn storage_os(path: &str, source: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match text(source, "volumeName") {
        "" => errors.push(FieldError::required(format!("{path}.volumeName"), "")),
        _ => errors.extend(FieldError::each(format!("{path}.volumeName"), &source["volumeName"], names::label)),
    }
    if !text(source, "volumeNamespace").is_empty() {
        let path = format!("{path}.volumeNamespace");
        errors.extend(FieldError::each(path, &source["volumeNamespace"], names::label));
    }
    if !source["secretRef"].is_null() {
        errors.extend(required(&format!("{path}.secretRef"), &source["secretRef"], &["name"]));
    }
    errors
}

/// Reasons against access modes, of a claim or a PersistentVolume.
pub fn access_modes(path: &str, modes: &Value) -> Vec<FieldError> {
    const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let mut errors: Vec<FieldError> =
        items(modes).filter_map(|mode| FieldError::unsupported(path, mode, &MODES)).collect();
    let once = |mode: &Value| mode == "ReadWriteOncePod";
    let other = |mode: &Value| !once(mode) && mode.as_str().is_some_and(|mode| MODES.contains(&mode));
    if items(modes).any(once) && items(modes).any(other) {
        errors.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
    errors
}

/// Access modes as a cell shows them: `RWO,ROX`.
pub fn access_modes_text(modes: &Value) -> String {
    let known =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let there = known.into_iter().filter(|(mode, _)| items(modes).any(|m| m == mode));
    there.map(|(_, short)| short).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(volume: Value) -> Vec<String> {
        let types = [HOST_PATH, GCE, AWS, NFS, FLOCKER, RBD, CEPHFS, QUOBYTE, FC, FLEX, AZURE_DISK, SCALE_IO];
        one_of("v", &volume, &types).into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn a_volume_has_one_type_and_what_that_needs() {
        assert_eq!(words(json!({"hostPath": {"path": "/x"}})), Vec::<String>::new());
        assert_eq!(words(json!({})), ["v: Required value: must specify a volume type"]);
        assert_eq!(
            words(json!({"hostPath": {"path": "/x/../y", "type": "Disk"}, "cephfs": {}})),
            [
                "v.hostPath.path: Invalid value: \"/x/../y\": must not contain '..'",
                "v.hostPath.type: Unsupported value: \"Disk\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
                "v.cephFS: Forbidden: may not specify more than 1 volume type",
            ]
        );
        assert_eq!(
            words(json!({"nfs": {"server": "s"}})),
            ["v.nfs.path: Required value", "v.nfs.path: Invalid value: \"\": must be an absolute path"]
        );
        assert_eq!(words(json!({"gcePersistentDisk": {}})), ["v.persistentDisk.pdName: Required value"]);
        assert_eq!(
            words(json!({"flexVolume": {"driver": "d", "options": {"a.k8s.io/b": "c"}}})),
            [
                "v.flexVolume.options[a.k8s.io/b]: Invalid value: \"a.k8s.io/b\": kubernetes.io and k8s.io namespaces are reserved"
            ]
        );
        assert_eq!(words(json!({"fc": {"targetWWNs": ["a"], "lun": 256}})).len(), 1);
        assert_eq!(words(json!({"quobyte": {"registry": "a:1,b", "volume": "v"}})).len(), 1);
        assert_eq!(words(json!({"azureDisk": {"diskName": "d", "diskURI": "x", "kind": "Managed"}})).len(), 1);
    }

    #[test]
    fn targets_of_iscsi_have_qualified_names() {
        let target = |iqn: &str| json!({"targetPortal": "10.0.0.1", "iqn": iqn, "lun": 0});
        for good in ["iqn.2001-04.com.example:storage", "eui.0123456789abcdef", &format!("naa.{}", "0".repeat(32))] {
            assert_eq!(iscsi("v", &target(good), "starts"), [], "{good}");
        }
        for (bad, why) in [("iqn.2001.com:x", "valid format"), ("eui.1", "valid format"), ("disk", "starts")] {
            assert!(iscsi("v", &target(bad), "starts")[0].message.ends_with(why), "{bad}");
        }
    }

    #[test]
    fn access_modes_are_known_and_one_pod_is_alone() {
        assert_eq!(access_modes("m", &json!(["ReadWriteOnce", "ReadOnlyMany"])), []);
        assert_eq!(access_modes("m", &json!(["ReadWriteOncePod", "ReadWriteOnce"])).len(), 1);
        assert_eq!(access_modes("m", &json!(["Write"])).len(), 1);
        assert_eq!(access_modes_text(&json!(["ReadOnlyMany", "ReadWriteOnce"])), "RWO,ROX");
    }
}
