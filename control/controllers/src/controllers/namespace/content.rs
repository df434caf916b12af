//! What a terminating namespace holds: lists it, and deletes what is not terminating yet.

use kube::{
    Client,
    api::{DeleteParams, ListParams},
};

use super::{Served, conditions::Remaining};
use crate::engine::{Failure, api_code};

/// The content of one namespace.
pub struct Content<'c> {
    /// Of the controller.
    pub client: &'c Client,
    /// The namespace's name.
    pub namespace: &'c str,
}

/// An object that is left.
struct Left {
    finalizers: Vec<String>,
    is_terminating: bool,
}

impl Content<'_> {
    /// Deletes all objects of some kinds; answers with what is left. A failure of one kind does not stop the others.
    pub async fn empty(&self, kinds: &[&Served], failures: &mut Vec<Failure>) -> Remaining {
        let mut remaining = Remaining::default();
        for kind in kinds {
            match self.empty_of(kind).await {
                Ok(left) if left.is_empty() => {}
                Ok(left) => {
                    remaining.objects.insert(kind.name(), left.len());
                    for finalizer in left.into_iter().flat_map(|object| object.finalizers) {
                        let count = remaining.finalizers.entry(finalizer).or_default();
                        *count = count.saturating_add(1);
                    }
                }
                Err(failure) => {
                    remaining.failures.push(format!("{}: {failure}", kind.name()));
                    failures.push(failure);
                }
            }
        }
        remaining
    }

    /// Deletes all of one kind; answers with what is left.
    async fn empty_of(&self, kind: &Served) -> Result<Vec<Left>, Failure> {
        let left = self.left(kind).await?;
        // What is terminating is waited for: deleting it again would only cost.
        if left.iter().all(|object| object.is_terminating) {
            return Ok(left);
        }
        self.delete_all(kind).await?;
        self.left(kind).await
    }

    async fn left(&self, kind: &Served) -> Result<Vec<Left>, Failure> {
        let list = kind.api(self.client, self.namespace).list_metadata(&ListParams::default()).await;
        let objects = list.map_err(Failure::request("list a namespace's content"))?.items.into_iter();
        let left = |object: kube::core::PartialObjectMeta<_>| Left {
            is_terminating: object.metadata.deletion_timestamp.is_some(),
            finalizers: object.metadata.finalizers.unwrap_or_default(),
        };
        Ok(objects.map(left).collect())
    }

    async fn delete_all(&self, kind: &Served) -> Result<(), Failure> {
        let api = kind.api(self.client, self.namespace);
        let params = DeleteParams::background();
        if kind.collection {
            let deleted = api.delete_collection(&params, &ListParams::default()).await;
            return deleted.map(drop).map_err(Failure::request("delete a namespace's content"));
        }
        let list = api.list_metadata(&ListParams::default()).await;
        for object in list.map_err(Failure::request("list a namespace's content"))?.items {
            match api.delete(object.metadata.name.as_deref().unwrap_or_default(), &params).await {
                Ok(_) => {}
                Err(error) if api_code(&error) == Some(404) => {}
                Err(error) => return Err(Failure::request("delete a namespace's content")(error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Method;
    use k8s_openapi::api::core::v1::Pod;
    use kube::{client::Body, core::ApiResource};
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;

    /// An API whose pods are `lists`, one answer after the other, and the methods that it was asked with.
    fn api(lists: Vec<Value>) -> (Client, Arc<Mutex<Vec<Method>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (methods, lists) = (asked.clone(), Arc::new(Mutex::new(lists.into_iter())));
        let api = tower::service_fn(move |request: http::Request<Body>| {
            methods.lock().push(request.method().clone());
            let body = match *request.method() {
                Method::GET => json!({"metadata": {}, "items": lists.lock().next().expect("no further list")}),
                _ => json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
            };
            std::future::ready(http::Response::builder().body(Body::from(body.to_string().into_bytes())))
        });
        (Client::new(api, "default"), asked)
    }

    async fn emptied(lists: Vec<Value>) -> (Remaining, Vec<Method>) {
        let (client, asked) = api(lists);
        let pods =
            Served { resource: ApiResource::erase::<Pod>(&()), namespaced: true, collection: true, scale: false };
        let mut failures = Vec::new();
        let remaining = Content { client: &client, namespace: "a" }.empty(&[&pods], &mut failures).await;
        assert!(failures.is_empty(), "{failures:?}");
        let asked = asked.lock().clone();
        (remaining, asked)
    }

    fn pod(name: &str, metadata: Value) -> Value {
        let mut metadata = metadata;
        metadata["name"] = json!(name);
        json!({"metadata": metadata})
    }

    #[tokio::test]
    async fn what_is_terminating_is_listed_once_and_not_deleted_again() {
        let terminating = pod("p", json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a.io/keep"]}));
        let (remaining, asked) = emptied(vec![json!([terminating, terminating])]).await;
        assert_eq!((remaining.objects.get("pods"), asked), (Some(&2), vec![Method::GET]));
        assert_eq!(remaining.finalizers.get("a.io/keep"), Some(&2));
        let (remaining, asked) = emptied(vec![json!([terminating, pod("new", json!({}))]), json!([terminating])]).await;
        assert_eq!((remaining.objects.get("pods"), asked), (Some(&1), vec![Method::GET, Method::DELETE, Method::GET]));
        let (remaining, asked) = emptied(vec![json!([])]).await;
        assert!(remaining.is_empty());
        assert_eq!(asked, [Method::GET]);
    }
}
