//! What a client takes as an answer: in which form (the object, a Table, its metadata alone) and in which encoding.
//!
//! Chosen as `k8s.io/apiserver` chooses: the clauses of `Accept` by weight, named types before wildcards, and of each
//! clause the first encoding that can carry what it asks for.

use crate::status::Status;

/// The form and the encoding of an answer about objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// What is shown.
    pub form: ResponseForm,
    /// In which bytes.
    pub encoding: Encoding,
    /// `pretty=1` in the clause that was taken.
    pub pretty: bool,
}

/// The form of an answer about objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseForm {
    /// The object, or the list of objects.
    #[default]
    Object,
    /// `Table`
    Table(MetaVersion),
    /// `PartialObjectMetadata`
    PartialMetadata(MetaVersion),
    /// `PartialObjectMetadataList`
    PartialMetadataList(MetaVersion),
}

/// The version of `meta.k8s.io` in which a form is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVersion {
    /// `v1`
    V1,
    /// `v1beta1`
    V1Beta1,
}

impl MetaVersion {
    /// `meta.k8s.io/v1`
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The bytes of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    /// JSON text.
    Json,
    /// YAML text; not for watches.
    Yaml,
    /// Kubernetes' protobuf envelope.
    Protobuf,
}

impl Encoding {
    const ALL: [Self; 3] = [Self::Json, Self::Yaml, Self::Protobuf];

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// Whether a watch can be sent in it.
    fn streams(self) -> bool {
        self != Self::Yaml
    }
}

/// What an endpoint can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Objects of a kind; custom resources have no protobuf.
    Objects {
        /// Whether the kind has protobuf messages.
        protobuf: bool,
        /// Whether its objects make rows: those of reviews and the like, which nobody lists, do not.
        table: bool,
    },
    /// What has one form only: a `Status`, discovery.
    Plain,
}

impl Endpoint {
    /// Whether it can answer in this form and encoding.
    fn serves(self, form: ResponseForm, encoding: Encoding) -> bool {
        match (self, form) {
            (Self::Plain, form) => form == ResponseForm::Object,
            (Self::Objects { protobuf, .. }, ResponseForm::Object) => protobuf || encoding != Encoding::Protobuf,
            (Self::Objects { table, .. }, ResponseForm::Table(_)) => table && encoding != Encoding::Protobuf,
            (Self::Objects { .. }, ResponseForm::PartialMetadata(_) | ResponseForm::PartialMetadataList(_)) => true,
        }
    }
}

/// One clause of an `Accept` header.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause<'a> {
    /// `application`, or `*`
    pub r#type: &'a str,
    /// `json`, or `*`
    pub subtype: &'a str,
    weight: f64,
    /// Everything but `q`.
    pub parameters: Vec<(&'a str, &'a str)>,
}

/// The clauses of an `Accept` header in the order in which they are tried. Malformed ones are left out.
pub fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause> = header.split(',').filter_map(Clause::of).collect();
    // Not `sort_by`: the order is none that can be sorted by (a named type of little weight comes before a wildcard of
    // much, and stands equal to nothing). An insertion sort is what Go makes of it.
    for from in 1..clauses.len() {
        let mut at = from;
        while at > 0 && clauses[at].comes_before(&clauses[at - 1]) {
            clauses.swap(at, at - 1);
            at -= 1;
        }
    }
    clauses
}

impl<'a> Clause<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let mut parts = text.trim_matches(' ').split(';');
        let (r#type, subtype) = match parts.next()?.split_once('/') {
            Some((r#type, subtype)) if !subtype.contains('/') => (r#type.trim_matches(' '), subtype.trim_matches(' ')),
            None if text.trim_matches(' ') == "*" => ("*", "*"),
            _ => return None,
        };
        let mut clause = Self { r#type, subtype, weight: 1.0, parameters: Vec::new() };
        for part in parts {
            match part.split_once('=') {
                Some((name, value)) if !value.is_empty() && !value.contains('=') => match name.trim_matches(' ') {
                    "q" => clause.weight = value.parse().unwrap_or(0.0),
                    name => clause.parameters.push((name, value.trim_matches(' '))),
                },
                _ => {}
            }
        }
        Some(clause)
    }

    fn comes_before(&self, other: &Self) -> bool {
        self.weight > other.weight
            || self.r#type != "*" && other.r#type == "*"
            || self.subtype != "*" && other.subtype == "*"
    }

    /// Whether the clause names this media type, or a wildcard that stands for it.
    pub fn covers(&self, r#type: &str, subtype: &str) -> bool {
        (self.r#type == r#type && (self.subtype == subtype || self.subtype == "*"))
            || (self.r#type == "*" && self.subtype == "*")
    }

    /// The value of a parameter; the last one, if it is given twice.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().rfind(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    /// What the clause asks for, if `endpoint` can answer it in `encoding`.
    fn take(&self, encoding: Encoding, endpoint: Endpoint) -> Option<Accepted> {
        let (r#type, subtype) = encoding.content_type().split_once('/')?;
        if !self.covers(r#type, subtype) {
            return None;
        }
        if self.parameter("stream").is_some_and(|stream| stream != "watch" || !encoding.streams()) {
            return None;
        }
        let server_version = if endpoint == Endpoint::Plain { None } else { Some("v1") };
        if self.parameter("sv").is_some_and(|version| Some(version) != server_version) {
            return None;
        }
        let form = self.form()?;
        let pretty = self.parameter("pretty") == Some("1");
        endpoint.serves(form, encoding).then_some(Accepted { form, encoding, pretty })
    }

    /// The form that is asked for; `None` where nobody serves it.
    fn form(&self) -> Option<ResponseForm> {
        let [kind, group, version] = ["as", "g", "v"].map(|name| self.parameter(name));
        if kind.is_none() && group.is_none() && version.is_none() {
            return Some(ResponseForm::Object);
        }
        let version = match (group?, version?) {
            ("meta.k8s.io", "v1") => MetaVersion::V1,
            ("meta.k8s.io", "v1beta1") => MetaVersion::V1Beta1,
            _ => return None,
        };
        match kind? {
            "Table" => Some(ResponseForm::Table(version)),
            "PartialObjectMetadata" => Some(ResponseForm::PartialMetadata(version)),
            "PartialObjectMetadataList" => Some(ResponseForm::PartialMetadataList(version)),
            _ => None,
        }
    }
}

/// What of an `Accept` header `endpoint` answers with; JSON where the header says nothing. A 406 where it takes nothing
/// that is served.
pub fn negotiate(header: &str, endpoint: Endpoint) -> Result<Accepted, Status> {
    if header.is_empty() {
        return Ok(Accepted::default());
    }
    for clause in clauses(header) {
        if let Some(accepted) = Encoding::ALL.into_iter().find_map(|encoding| clause.take(encoding, endpoint)) {
            return Ok(accepted);
        }
    }
    let served = Encoding::ALL.map(Encoding::content_type);
    // Whether a media type is served is asked before its parameters are read.
    let is_served = header.split(',').any(|clause| {
        let media_type = clause.split(';').next().unwrap_or_default().trim();
        served.contains(&media_type) || matches!(media_type, "*/*" | "application/*")
    });
    Err(if is_served { Status::not_acceptable(&served) } else { Status::no_representation(&served) })
}

/// The same for a watch.
pub fn negotiate_watch(header: &str, endpoint: Endpoint) -> Result<Accepted, Status> {
    let accepted = negotiate(header, endpoint)?;
    if accepted.encoding.streams() {
        return Ok(accepted);
    }
    let served = Encoding::ALL.into_iter().filter(|encoding| encoding.streams());
    let served: Vec<String> = served.map(|encoding| format!("{};stream=watch", encoding.content_type())).collect();
    Err(Status::not_acceptable(&served))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT_IN: Endpoint = Endpoint::Objects { protobuf: true, table: true };
    const CUSTOM: Endpoint = Endpoint::Objects { protobuf: false, table: true };

    fn taken(header: &str, endpoint: Endpoint) -> (ResponseForm, Encoding) {
        let Accepted { form, encoding, .. } = negotiate(header, endpoint).unwrap();
        (form, encoding)
    }

    #[test]
    fn the_first_clause_that_can_be_served_is_taken() {
        use {Encoding::*, MetaVersion::*, ResponseForm::*};
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
            application/json";
        let typed = "application/vnd.kubernetes.protobuf,application/json";
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
            application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        for (header, endpoint, expected) in [
            (kubectl, BUILT_IN, (Table(V1), Json)),
            (kubectl, Endpoint::Plain, (Object, Json)),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", CUSTOM, (Table(V1Beta1), Json)),
            (typed, BUILT_IN, (Object, Protobuf)),
            (typed, CUSTOM, (Object, Json)),
            (metadata, CUSTOM, (PartialMetadataList(V1), Protobuf)),
            ("", BUILT_IN, (Object, Json)),
            ("*/*", BUILT_IN, (Object, Json)),
            ("*", BUILT_IN, (Object, Json)),
            ("application/*", BUILT_IN, (Object, Json)),
            ("application/yaml", BUILT_IN, (Object, Yaml)),
            ("application/json;stream=watch", BUILT_IN, (Object, Json)),
            ("text/html, application/xml;q=0.9, */*;q=0.8", BUILT_IN, (Object, Json)),
        ] {
            assert_eq!(taken(header, endpoint), expected, "{header}");
        }
    }

    #[test]
    fn weights_decide_and_named_types_come_before_wildcards() {
        let json_first = "application/vnd.kubernetes.protobuf;q=0.5, application/json;q=0.9";
        assert_eq!(taken(json_first, BUILT_IN).1, Encoding::Json);
        assert_eq!(taken("*/*;q=1, application/vnd.kubernetes.protobuf;q=0.1", BUILT_IN).1, Encoding::Protobuf);
        assert_eq!(taken("application/*,application/yaml;q=0.8", BUILT_IN).1, Encoding::Yaml);
    }

    #[test]
    fn what_is_not_served_is_refused_in_kubernetes_words() {
        let all = "only the following media types are accepted: application/json, application/yaml, \
            application/vnd.kubernetes.protobuf";
        for header in ["application/json;as=Table", "application/json;stream=other"] {
            let refused = negotiate(header, BUILT_IN).unwrap_err();
            assert_eq!((refused.code, refused.reason, &*refused.message), (406, "NotAcceptable", all), "{header}");
        }
        for header in ["text/html", "rubbish"] {
            let refused = negotiate(header, BUILT_IN).unwrap_err();
            assert!(refused.message.starts_with("406: Not Acceptable\n\nAvailable representations: "), "{header}");
        }
        assert_eq!(negotiate("application/vnd.kubernetes.protobuf", CUSTOM).unwrap_err().code, 406);
        assert!(negotiate("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1", BUILT_IN).is_err());
        let review = Endpoint::Objects { protobuf: true, table: false };
        assert_eq!(negotiate("application/json;as=Table;g=meta.k8s.io;v=v1", review).unwrap_err().code, 406);
        assert!(negotiate("application/json;as=Table;g=meta.k8s.io;v=v1,application/json", review).is_ok());
        let stream = negotiate_watch("application/yaml", BUILT_IN).unwrap_err();
        let expected = "only the following media types are accepted: application/json;stream=watch, \
            application/vnd.kubernetes.protobuf;stream=watch";
        assert_eq!(stream.message, expected);
    }
}
