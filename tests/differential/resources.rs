//! What is tested: the kinds that the reference serves, each with its schema and one good object of it.

use fairlead_control::schema::{Schema, Types};
use kube::Client;
use serde_json::Value;

use crate::{
    exchange::exchange,
    kit::Result,
    request::{Memory, Request},
};

/// A kind and a good object of it, in which `${n}`, `${ns}`, `${ip}` and `${csr}` are to be filled in.
pub struct Resource {
    pub kind: String,
    pub plural: String,
    /// `/api/v1` or `/apis/apps/v1`.
    pub prefix: String,
    pub namespaced: bool,
    /// `status`, `scale`…
    pub subresources: Vec<String>,
    pub schema: Schema,
    pub sample: Value,
}

impl Resource {
    /// Where objects of the kind are listed and created, in `namespace` if they have one.
    pub fn collection(&self, namespace: &str) -> String {
        match self.namespaced {
            true => format!("{}/namespaces/{namespace}/{}", self.prefix, self.plural),
            false => format!("{}/{}", self.prefix, self.plural),
        }
    }

    /// Objects of it change how later requests are answered, of whatever kind: only the sample itself is stored.
    pub fn has_wide_effect(&self) -> bool {
        const GROUPS: [&str; 4] = ["admissionregistration.", "apiregistration.", "flowcontrol.", "scheduling."];
        GROUPS.iter().any(|group| self.prefix.contains(group)) || ["ServiceCIDR", "Node"].contains(&&*self.kind)
    }
}

/// Kinds of the test, in the order of the samples.
pub async fn resources(reference: &Client, wanted: &[String]) -> Result<Vec<Resource>> {
    let samples: Vec<Value> = serde_json::from_str(include_str!("samples.json"))?;
    let mut found = Vec::new();
    for sample in samples {
        let (version, kind) = (text(&sample["apiVersion"]), text(&sample["kind"]));
        if !wanted.is_empty() && !wanted.contains(&kind) {
            continue;
        }
        let prefix = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
        let list = exchange(reference, &Request::new("discovery", "GET", &prefix), &mut Memory::default()).await?;
        let all = list.body["resources"].as_array().cloned().unwrap_or_default();
        let is_main = |resource: &&Value| resource["kind"] == *kind && !text(&resource["name"]).contains('/');
        let main = all.iter().find(is_main).ok_or_else(|| format!("the reference does not serve {version} {kind}"))?;
        let plural = text(&main["name"]);
        let below = format!("{plural}/");
        let subresources = all.iter().filter_map(|r| Some(r["name"].as_str()?.strip_prefix(&below)?.to_owned()));
        let types = Types::builtin();
        let name = types.of_kind(&version, &kind).and_then(|id| types.definition(id)).map(|d| d.name.to_string());
        let schema = name.and_then(|name| Schema::builtin(&name)).ok_or_else(|| format!("no schema of {kind}"))?;
        found.push(Resource {
            subresources: subresources.collect(),
            namespaced: main["namespaced"] == true,
            kind,
            plural,
            prefix,
            schema,
            sample,
        });
    }
    Ok(found)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
