//! Validating webhooks: all that are about a request are asked at once; one that refuses is enough.

use std::{sync::Arc, time::Instant};

use futures::future::join_all;
use serde_json::Value;

use super::hook::Hook;
use crate::{
    admission::{attributes::Attributes, versions::Versioned},
    audit::current,
    deadline,
    kinds::Kind,
    metrics::AdmissionMetrics,
    status::Status,
};

/// What audit events note of a webhook whose failure let the request pass.
const FAILED_OPEN: &str = "failed-open.validating.webhook.admission.k8s.io/";

/// Asks the webhooks about a request. Answers with the first refusal in their order.
pub async fn dispatch(
    hooks: &[Arc<Hook>],
    attributes: &Attributes<'_>,
    objects: &mut Versioned<'_>,
    metrics: &AdmissionMetrics,
) -> Result<(), Status> {
    let mut asked: Vec<(&Hook, Arc<Kind>)> = Vec::new();
    for hook in hooks {
        if let Some(invoked) = hook.invoked(attributes, objects).await? {
            asked.push((hook, invoked));
        }
    }
    if asked.is_empty() {
        return Ok(());
    }
    deadline::must_not_be_over()?;
    let mut seen: Vec<(Value, Value)> = Vec::with_capacity(asked.len());
    for (_, invoked) in &asked {
        objects.convert(invoked).await?;
        seen.push((objects.object().clone(), objects.old().clone()));
    }
    let answers = asked.iter().zip(&seen).enumerate().map(|(index, ((hook, invoked), (object, old)))| async move {
        let begun = Instant::now();
        let answer = hook.ask(attributes, invoked, (object, old), false).await;
        hook.count(metrics, attributes.operation, false, begun, answer.as_ref().err());
        match answer {
            Ok(_) => Ok(()),
            Err(failure) => hook.failed(failure, false, metrics).inspect(|()| {
                current::annotate(&format!("{FAILED_OPEN}round_0_index_{index}"), || hook.name.clone());
            }),
        }
    });
    join_all(answers).await.into_iter().collect()
}
