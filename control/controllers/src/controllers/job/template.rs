//! The pods that a Job makes.

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};

use super::{
    super::pod_template,
    pods::{FAILURES, IGNORED_FAILURES, INDEX, IndexFailures, TRACKING},
    terms::Terms,
};

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Longest beginning of a generated name: the server adds five characters.
const MAX_GENERATE_NAME: usize = 58;

/// What a pod with a completion index has beside what the template says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletionIndex {
    /// The completion index.
    pub index: usize,
    /// Failures of the index so far.
    pub failures: IndexFailures,
}

/// The pod without an index, with the Job as its `owner`; its name is left to the server.
pub fn desired(job: &Job, terms: &Terms, owner: OwnerReference) -> Pod {
    let mut pod = pod_template::pod(terms.spec.template.clone(), &job.metadata, owner);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    if terms.indexed {
        let containers = pod
            .spec
            .iter_mut()
            .flat_map(|spec| spec.init_containers.iter_mut().flatten().chain(spec.containers.iter_mut()));
        containers.for_each(tell_index);
    }
    pod
}

/// The same pod at its place in an indexed Job.
pub fn placed(mut pod: Pod, job: &Job, terms: &Terms, place: CompletionIndex) -> Pod {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let index = place.index.to_string();
    let suffix = format!("-{index}-");
    let kept = name.len().min(MAX_GENERATE_NAME.saturating_sub(suffix.len()));
    pod.metadata.generate_name = Some(format!("{}{suffix}", name.get(..kept).unwrap_or(name)));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.clone());
    if terms.backoff_limit_per_index.is_some() {
        annotations.insert(FAILURES.to_owned(), place.failures.counted.to_string());
        if place.failures.ignored > 0 {
            annotations.insert(IGNORED_FAILURES.to_owned(), place.failures.ignored.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.clone());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{name}-{index}"));
    }
    pod
}

fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field), ..Default::default() }),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_indexed_pod_knows_its_place() {
        let name = "a".repeat(60);
        let job: Job = serde_json::from_value(json!({"metadata": {"name": name},
            "spec": {"completionMode": "Indexed", "completions": 20, "backoffLimitPerIndex": 1,
            "template": {"metadata": {"labels": {"app": "x"}, "finalizers": ["mine"]}, "spec": {
                "initContainers": [{"name": "i", "env": [{"name": INDEX_VARIABLE, "value": "own"}]}],
                "containers": [{"name": "c"}]}}}}))
        .expect("a valid Job");
        let terms = Terms::of(&job).expect("known terms");
        let place = CompletionIndex { index: 12, failures: IndexFailures { counted: 1, ignored: 2 } };
        let pod = placed(desired(&job, &terms, OwnerReference::default()), &job, &terms, place);
        let pod = serde_json::to_value(pod).expect("a value");
        let meta = &pod["metadata"];
        assert_eq!(meta["generateName"], format!("{}-12-", "a".repeat(54)));
        assert_eq!(meta["finalizers"], json!(["mine", TRACKING]));
        assert_eq!(meta["labels"], json!({"app": "x", INDEX: "12"}));
        assert_eq!(meta["annotations"], json!({INDEX: "12", FAILURES: "1", IGNORED_FAILURES: "2"}));
        assert_eq!(pod["spec"]["hostname"], format!("{name}-12"));
        assert_eq!(pod["spec"]["initContainers"][0]["env"], json!([{"name": INDEX_VARIABLE, "value": "own"}]));
        assert_eq!(
            pod["spec"]["containers"][0]["env"][0]["valueFrom"]["fieldRef"]["fieldPath"],
            "metadata.labels['batch.kubernetes.io/job-completion-index']"
        );
    }

    #[test]
    fn a_pod_without_an_index_is_the_template_with_a_finalizer() {
        let job: Job = serde_json::from_value(json!({"metadata": {"name": "j"},
            "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}))
        .expect("a valid Job");
        let pod = desired(&job, &Terms::of(&job).expect("known terms"), OwnerReference::default());
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("j-"));
        assert_eq!(pod.metadata.finalizers, Some(vec![TRACKING.to_owned()]));
        assert_eq!(pod.spec.map(|spec| spec.containers[0].env.clone()), Some(None));
    }
}
