//! k8s-openapi's JSON schemas of all types that the API serves.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        authentication::v1::{SelfSubjectReview, TokenRequest, TokenReview},
        authorization::v1::{
            LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
        },
        autoscaling::v1::Scale,
        certificates::v1::CertificateSigningRequest,
        coordination::v1::Lease,
        core::v1 as core,
        discovery::v1::EndpointSlice,
        events::v1::Event,
        networking::v1::{IPAddress, ServiceCIDR},
        policy::v1::Eviction,
    },
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Status},
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::Value;

/// Every definition by its full name. A kind that is to be served is added here.
pub fn all() -> BTreeMap<String, Value> {
    let settings = SchemaSettings::openapi3().with(|s| s.transforms.clear());
    let mut generator = SchemaGenerator::new(settings);
    macro_rules! add {
        ($($kind:ty),* $(,)?) => { $( generator.subschema_for::<$kind>(); )* };
    }
    add!(
        core::Binding,
        core::ConfigMap,
        core::Endpoints,
        core::Event,
        core::Namespace,
        core::Node,
        core::Pod,
        core::Secret,
        core::Service,
        core::ServiceAccount,
        Deployment,
        ReplicaSet,
        SelfSubjectReview,
        TokenRequest,
        TokenReview,
        LocalSubjectAccessReview,
        SelfSubjectAccessReview,
        SelfSubjectRulesReview,
        SubjectAccessReview,
        Scale,
        CertificateSigningRequest,
        Lease,
        EndpointSlice,
        Event,
        IPAddress,
        ServiceCIDR,
        Eviction,
        DeleteOptions,
        ListMeta,
        Status,
    );
    generator.take_definitions(false).into_iter().collect()
}
