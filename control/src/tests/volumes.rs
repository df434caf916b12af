//! Claims, volumes and VolumeAttributesClasses stay while something uses them, and go when nothing does any more.

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::VolumeAttributesClass,
};
use kube::{Resource, api::DeleteParams};

use super::*;

async fn wait_until_gone<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let gone = async {
        while api.get_opt(name).await.expect("an answer").is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it goes");
}

#[tokio::test]
async fn what_is_in_use_is_deleted_when_nothing_uses_it_any_more() {
    let cluster = Cluster::start(1).await;
    let (claims, pods) = (cluster.api::<PersistentVolumeClaim>(), cluster.api::<Pod>());
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let classes: Api<VolumeAttributesClass> = Api::all(cluster.client.clone());
    let class = json!({"metadata": {"name": "gold"}, "driverName": "d.io", "parameters": {"iops": "1"}});
    create::<VolumeAttributesClass>(&cluster.client, "", class).await;
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}, "persistentVolumeReclaimPolicy": "Retain"}});
    create::<PersistentVolume>(&cluster.client, "", volume).await;
    let claim = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "volumeAttributesClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}})
    };
    for name in ["used", "unused"] {
        create::<PersistentVolumeClaim>(&cluster.client, "default", claim(name)).await;
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "used"}}]}});
    create::<Pod>(&cluster.client, "default", pod).await;
    let bound = Patch::Merge(json!({"status": {"phase": "Bound"}}));
    volumes.patch_status("v", &PatchParams::default(), &bound).await.expect("bound");

    let now = DeleteParams::default();
    claims.delete("used", &now).await.expect("begun");
    claims.delete("unused", &now).await.expect("begun");
    volumes.delete("v", &now).await.expect("begun");
    classes.delete("gold", &now).await.expect("begun");
    wait_until_gone(&claims, "unused").await;
    let used = claims.get("used").await.expect("in use");
    assert_eq!(used.metadata.finalizers.as_deref(), Some(&["kubernetes.io/pvc-protection".to_owned()][..]));
    assert!(volumes.get("v").await.is_ok() && classes.get("gold").await.is_ok());

    pods.delete("p", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.expect("gone");
    wait_until_gone(&claims, "used").await;
    wait_until_gone(&classes, "gold").await;
    let released = Patch::Merge(json!({"status": {"phase": "Released"}}));
    volumes.patch_status("v", &PatchParams::default(), &released).await.expect("released");
    wait_until_gone(&volumes, "v").await;
    cluster.stop().await;
}
