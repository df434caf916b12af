//! What discovery says of kinds, as `kube-apiserver` 1.35 says it: written from its sources, and compared with the
//! kinds of this program.

use super::*;

/// API version, plural, singular, kind, short names, categories, scope, subresources, verbs. `-` is nothing; `all` are
/// the verbs of every stored kind.
const FACTS: &str = "
admissionregistration.k8s.io/v1 mutatingwebhookconfigurations mutatingwebhookconfiguration MutatingWebhookConfiguration - api-extensions cluster - all
admissionregistration.k8s.io/v1 validatingadmissionpolicies validatingadmissionpolicy ValidatingAdmissionPolicy - api-extensions cluster status all
admissionregistration.k8s.io/v1 validatingadmissionpolicybindings validatingadmissionpolicybinding ValidatingAdmissionPolicyBinding - api-extensions cluster - all
admissionregistration.k8s.io/v1 validatingwebhookconfigurations validatingwebhookconfiguration ValidatingWebhookConfiguration - api-extensions cluster - all
apiregistration.k8s.io/v1 apiservices apiservice APIService - api-extensions cluster status all
authentication.k8s.io/v1 selfsubjectreviews selfsubjectreview SelfSubjectReview - - cluster - create
authentication.k8s.io/v1 tokenreviews tokenreview TokenReview - - cluster - create
authorization.k8s.io/v1 localsubjectaccessreviews localsubjectaccessreview LocalSubjectAccessReview - - namespace - create
authorization.k8s.io/v1 selfsubjectaccessreviews selfsubjectaccessreview SelfSubjectAccessReview - - cluster - create
authorization.k8s.io/v1 selfsubjectrulesreviews selfsubjectrulesreview SelfSubjectRulesReview - - cluster - create
authorization.k8s.io/v1 subjectaccessreviews subjectaccessreview SubjectAccessReview - - cluster - create
v1 bindings binding Binding - - namespace - create
v1 componentstatuses componentstatus ComponentStatus cs - cluster - get,list
v1 configmaps configmap ConfigMap cm - namespace - all
v1 endpoints endpoints Endpoints ep - namespace - all
v1 events event Event ev - namespace - all
v1 limitranges limitrange LimitRange limits - namespace - all
v1 namespaces namespace Namespace ns - cluster finalize,status create,delete,get,list,patch,update,watch
v1 nodes node Node no - cluster proxy,status all
v1 persistentvolumeclaims persistentvolumeclaim PersistentVolumeClaim pvc - namespace status all
v1 persistentvolumes persistentvolume PersistentVolume pv - cluster status all
v1 pods pod Pod po all namespace attach,binding,ephemeralcontainers,eviction,exec,log,portforward,proxy,resize,status all
v1 podtemplates podtemplate PodTemplate - - namespace - all
v1 replicationcontrollers replicationcontroller ReplicationController rc all namespace scale,status all
v1 resourcequotas resourcequota ResourceQuota quota - namespace status all
v1 secrets secret Secret - - namespace - all
v1 serviceaccounts serviceaccount ServiceAccount sa - namespace token all
v1 services service Service svc all namespace proxy,status all
flowcontrol.apiserver.k8s.io/v1 flowschemas flowschema FlowSchema - - cluster status all
flowcontrol.apiserver.k8s.io/v1 prioritylevelconfigurations prioritylevelconfiguration PriorityLevelConfiguration - - cluster status all
networking.k8s.io/v1 ingressclasses ingressclass IngressClass - - cluster - all
networking.k8s.io/v1 ingresses ingress Ingress ing - namespace status all
networking.k8s.io/v1 ipaddresses ipaddress IPAddress ip - cluster - all
networking.k8s.io/v1 networkpolicies networkpolicy NetworkPolicy netpol - namespace - all
networking.k8s.io/v1 servicecidrs servicecidr ServiceCIDR - - cluster status all
rbac.authorization.k8s.io/v1 clusterrolebindings clusterrolebinding ClusterRoleBinding - - cluster - all
rbac.authorization.k8s.io/v1 clusterroles clusterrole ClusterRole - - cluster - all
rbac.authorization.k8s.io/v1 rolebindings rolebinding RoleBinding - - namespace - all
rbac.authorization.k8s.io/v1 roles role Role - - namespace - all
resource.k8s.io/v1 deviceclasses deviceclass DeviceClass - - cluster - all
resource.k8s.io/v1 resourceclaims resourceclaim ResourceClaim - - namespace status all
resource.k8s.io/v1 resourceclaimtemplates resourceclaimtemplate ResourceClaimTemplate - - namespace - all
resource.k8s.io/v1 resourceslices resourceslice ResourceSlice - - cluster - all
storage.k8s.io/v1 csidrivers csidriver CSIDriver - - cluster - all
storage.k8s.io/v1 csinodes csinode CSINode - - cluster - all
storage.k8s.io/v1 csistoragecapacities csistoragecapacity CSIStorageCapacity - - namespace - all
storage.k8s.io/v1 storageclasses storageclass StorageClass sc - cluster - all
storage.k8s.io/v1 volumeattachments volumeattachment VolumeAttachment - - cluster status all
storage.k8s.io/v1 volumeattributesclasses volumeattributesclass VolumeAttributesClass vac - cluster - all
";

#[test]
fn discovery_tells_the_facts_of_kube_apiserver() {
    let kinds = Kinds::built_in();
    for line in FACTS.lines().filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [api_version, plural, singular, name, short_names, categories, scope, subresources, verbs] = fields[..]
        else {
            panic!("{line}")
        };
        let kind = kinds.by_api_version(api_version, name).unwrap_or_else(|| panic!("{name} is not served"));
        let joined = |list: &[Cow<'static, str>]| if list.is_empty() { "-".to_owned() } else { list.join(",") };
        let all = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        let told = [
            kind.plural.to_string(),
            kind.singular.to_string(),
            joined(&kind.short_names),
            joined(&kind.categories),
            if kind.namespaced { "namespace" } else { "cluster" }.to_owned(),
            joined(&kind.subresources),
            if kind.verbs() == all { "all".to_owned() } else { kind.verbs().join(",") },
        ];
        assert_eq!(told, [plural, singular, short_names, categories, scope, subresources, verbs], "{name}");
    }
}

#[test]
fn what_is_served_of_these_groups_is_among_the_facts() {
    let groups: Vec<&str> = FACTS.lines().filter_map(|line| line.split(' ').next()).collect();
    for kind in Kinds::built_in().iter().filter(|kind| groups.contains(&kind.api_version().as_str())) {
        let named = format!("{} {} {} {} ", kind.api_version(), kind.plural, kind.singular, kind.kind);
        assert!(FACTS.contains(&named), "{kind:?}");
    }
}
