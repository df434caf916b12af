//! Requests for the objects of one kind, with the names that kube's `Api` gives them.
//!
//! [`Api`] only decodes answers and encodes objects. All else is done by [`Requests`], which knows no kind and is
//! compiled once.

use std::{fmt::Debug, marker::PhantomData};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Client, Error, Resource, Result,
    api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Request},
    core::{ApiResource, DynamicObject, PartialObjectMeta},
};
use serde::Serialize;

use crate::{Json, Object, raw::RawObject};

/// The objects of one kind: all of them, or those of one namespace.
#[derive(Clone)]
pub struct Api<K> {
    requests: Requests,
    kind: PhantomData<fn() -> K>,
}

impl<K: Object> Api<K> {
    /// The objects of all namespaces, or those of a kind without namespaces.
    pub fn all(client: Client) -> Self {
        let resource = ApiResource::erase::<K>(&());
        Self { requests: Requests::new(kube::Api::all_with(client, &resource)), kind: PhantomData }
    }

    /// The objects of one namespace.
    pub fn namespaced(client: Client, namespace: &str) -> Self
    where
        K: Resource<Scope = NamespaceResourceScope>,
    {
        let resource = ApiResource::erase::<K>(&());
        Self { requests: Requests::new(kube::Api::namespaced_with(client, namespace, &resource)), kind: PhantomData }
    }

    /// Reads an object.
    pub async fn get(&self, name: &str) -> Result<K> {
        decode(self.requests.get(name).await?)
    }

    /// Reads an object; `None` where there is none.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>> {
        match self.get(name).await {
            Err(Error::Api(status)) if status.is_not_found() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Reads an object's metadata; `None` where there is none.
    pub async fn get_metadata_opt(&self, name: &str) -> Result<Option<PartialObjectMeta<DynamicObject>>> {
        self.requests.get_metadata_opt(name).await
    }

    /// Creates an object, and gives it as it was stored.
    pub async fn create(&self, params: &PostParams, object: &K) -> Result<K> {
        decode(self.requests.create(params, encode(object)?).await?)
    }

    /// Creates a subresource out of `body`, such as a Pod's binding. The answer is not read.
    pub async fn create_subresource<B: Json>(
        &self,
        subresource: &str,
        name: &str,
        params: &PostParams,
        body: &B,
    ) -> Result<()> {
        self.requests.create_subresource(subresource, name, params, encode(body)?).await
    }

    /// Replaces an object, and gives it as it was stored.
    pub async fn replace(&self, name: &str, params: &PostParams, object: &K) -> Result<K> {
        decode(self.requests.replace(name, params, encode(object)?).await?)
    }

    /// Replaces an object's status, and gives the object as it was stored.
    pub async fn replace_status(&self, name: &str, params: &PostParams, object: &K) -> Result<K> {
        decode(self.requests.replace_status(name, params, encode(object)?).await?)
    }

    /// Changes an object, and gives it as it was stored.
    pub async fn patch<P: Serialize + Debug>(&self, name: &str, params: &PatchParams, patch: &Patch<P>) -> Result<K> {
        let request = self.requests.url.patch(name, params, patch);
        decode(self.requests.send("patch", request).await?)
    }

    /// Changes an object's status, and gives the object as it was stored.
    pub async fn patch_status<P>(&self, name: &str, params: &PatchParams, patch: &Patch<P>) -> Result<K>
    where
        P: Serialize + Debug,
    {
        self.patch_subresource("status", name, params, patch).await
    }

    /// Changes a subresource, and gives the object as it was stored.
    pub async fn patch_subresource<P>(
        &self,
        subresource: &str,
        name: &str,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> Result<K>
    where
        P: Serialize + Debug,
    {
        let request = self.requests.url.patch_subresource(subresource, name, params, patch);
        decode(self.requests.send("patch_subresource", request).await?)
    }

    /// Deletes an object, or begins to. The answer is not read.
    pub async fn delete(&self, name: &str, params: &DeleteParams) -> Result<()> {
        self.requests.delete(name, params).await
    }

    /// What kube's watcher asks by.
    pub(crate) fn raw(&self) -> &kube::Api<RawObject> {
        &self.requests.api
    }
}

fn decode<K: Object>(json: String) -> Result<K> {
    K::decode(json.as_bytes()).map_err(Error::SerdeError)
}

fn encode<T: Json>(object: &T) -> Result<Vec<u8>> {
    object.encode().map_err(Error::SerdeError)
}

/// The requests of one kind, as text. Futures are boxed here: that of an `async fn` would be compiled again by each
/// crate that awaits it.
#[derive(Clone)]
struct Requests {
    api: kube::Api<RawObject>,
    url: Request,
}

type Built = std::result::Result<http::Request<Vec<u8>>, kube::core::request::Error>;

impl Requests {
    fn new(api: kube::Api<RawObject>) -> Self {
        let url = Request::new(api.resource_url());
        Self { api, url }
    }

    /// Sends a request; `operation` is its name in traces.
    fn send(&self, operation: &'static str, request: Built) -> BoxFuture<'static, Result<String>> {
        let client = self.api.clone().into_client();
        async move {
            let mut request = request.map_err(Error::BuildRequest)?;
            request.extensions_mut().insert(operation);
            client.request_text(request).await
        }
        .boxed()
    }

    fn get(&self, name: &str) -> BoxFuture<'static, Result<String>> {
        self.send("get", self.url.get(name, &GetParams::default()))
    }

    fn get_metadata_opt(&self, name: &str) -> BoxFuture<'static, Result<Option<PartialObjectMeta<DynamicObject>>>> {
        let answer = self.send("get_metadata", self.url.get_metadata(name, &GetParams::default()));
        async move {
            match answer.await {
                Ok(json) => serde_json::from_str(&json).map(Some).map_err(Error::SerdeError),
                Err(Error::Api(status)) if status.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn create(&self, params: &PostParams, body: Vec<u8>) -> BoxFuture<'static, Result<String>> {
        self.send("create", self.url.create(params, body))
    }

    fn create_subresource(
        &self,
        subresource: &str,
        name: &str,
        params: &PostParams,
        body: Vec<u8>,
    ) -> BoxFuture<'static, Result<()>> {
        self.unread("create_subresource", self.url.create_subresource(subresource, name, params, body))
    }

    fn replace(&self, name: &str, params: &PostParams, body: Vec<u8>) -> BoxFuture<'static, Result<String>> {
        self.send("replace", self.url.replace(name, params, body))
    }

    fn replace_status(&self, name: &str, params: &PostParams, body: Vec<u8>) -> BoxFuture<'static, Result<String>> {
        self.send("replace_status", self.url.replace_subresource("status", name, params, body))
    }

    fn delete(&self, name: &str, params: &DeleteParams) -> BoxFuture<'static, Result<()>> {
        self.unread("delete", self.url.delete(name, params))
    }

    fn unread(&self, operation: &'static str, request: Built) -> BoxFuture<'static, Result<()>> {
        self.send(operation, request).map(|answer| answer.map(drop)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Binding, ConfigMap, Node};
    use serde_json::json;

    use super::*;
    use crate::scripted::client;

    fn refusal(code: u16) -> (u16, String) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
            "reason": if code == 404 { "NotFound" } else { "Forbidden" }, "message": "no"});
        (code, status.to_string())
    }

    #[tokio::test]
    async fn only_what_is_not_there_is_none() {
        let found = json!({"metadata": {"name": "a"}}).to_string();
        let (client, asked) =
            client([(200, found.clone()), refusal(404), refusal(403), (200, found), refusal(404), refusal(403)]);
        let nodes = Api::<Node>::all(client);
        assert!(nodes.get_opt("a").await.is_ok_and(|node| node.is_some()));
        assert!(nodes.get_opt("a").await.is_ok_and(|node| node.is_none()));
        assert!(nodes.get_opt("a").await.is_err());
        assert!(nodes.get_metadata_opt("a").await.is_ok_and(|node| node.is_some()));
        assert!(nodes.get_metadata_opt("a").await.is_ok_and(|node| node.is_none()));
        assert!(nodes.get_metadata_opt("a").await.is_err());
        assert_eq!(asked.lock()[0], "GET /api/v1/nodes/a");
        assert!(asked.lock()[3].contains("as=PartialObjectMetadata;"));
    }

    #[tokio::test]
    async fn requests_go_where_kubes_own_go() {
        let map = ConfigMap::default();
        let (client, asked) = client(std::iter::repeat_n((200, "{}".to_owned()), 8));
        let api = Api::<ConfigMap>::namespaced(client, "shop");
        let (post, patch) = (PostParams::default(), Patch::Merge(json!({})));
        api.create(&post, &map).await.unwrap();
        api.create_subresource("binding", "a", &post, &Binding::default()).await.unwrap();
        api.replace("a", &post, &map).await.unwrap();
        api.replace_status("a", &post, &map).await.unwrap();
        api.patch("a", &PatchParams::default(), &patch).await.unwrap();
        api.patch_status("a", &PatchParams::default(), &patch).await.unwrap();
        api.patch_subresource("approval", "a", &PatchParams::default(), &patch).await.unwrap();
        api.delete("a", &DeleteParams::default()).await.unwrap();
        let base = "/api/v1/namespaces/shop/configmaps";
        let expected = [
            format!("POST {base}?"),
            format!("POST {base}/a/binding?"),
            format!("PUT {base}/a?"),
            format!("PUT {base}/a/status?"),
            format!("PATCH {base}/a? application/json"),
            format!("PATCH {base}/a/status? application/json"),
            format!("PATCH {base}/a/approval? application/json"),
            format!("DELETE {base}/a?"),
        ];
        assert_eq!(*asked.lock(), expected);
    }
}
