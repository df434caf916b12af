//! Which form of an answer a client takes: the object, a Table, or its metadata alone. All as JSON.

use mediatype::{MediaType, MediaTypeList, ReadParams};

use crate::status::Status;

/// The form of an answer about objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseForm {
    /// The object or list itself.
    Object,
    /// Rows and columns, made by the server.
    Table,
    /// `metadata` alone.
    PartialMetadata,
}

impl ResponseForm {
    /// The first form in an `Accept` header that is served. A client that takes anything gets JSON.
    pub fn of(accept: &str) -> Result<Self, Status> {
        if accept.trim().is_empty() {
            return Ok(Self::Object);
        }
        let served = MediaTypeList::new(accept).filter_map(Result::ok).find_map(|media_type| Self::of_one(&media_type));
        served.ok_or_else(|| Status::not_acceptable(accept))
    }

    fn of_one(media_type: &MediaType) -> Option<Self> {
        let name = media_type.essence().to_string();
        if !matches!(name.to_ascii_lowercase().as_str(), "application/json" | "*/*" | "application/*") {
            return None;
        }
        let parameter = |wanted: &str| {
            let mut all = ReadParams::params(media_type);
            all.find(|(key, _)| key.as_str().eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.unquoted_str().into_owned())
        };
        let is = |wanted: &str, value: &str| parameter(wanted).is_none_or(|given| given == value);
        let served = is("g", "meta.k8s.io") && is("v", "v1");
        match parameter("as").as_deref() {
            None => Some(Self::Object),
            Some("Table") if served => Some(Self::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if served => Some(Self::PartialMetadata),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_served_form_is_taken() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(ResponseForm::of(kubectl).unwrap(), ResponseForm::Table);
        assert_eq!(
            ResponseForm::of("application/vnd.kubernetes.protobuf,application/json").unwrap(),
            ResponseForm::Object
        );
        assert_eq!(ResponseForm::of("").unwrap(), ResponseForm::Object);
        assert_eq!(ResponseForm::of("*/*").unwrap(), ResponseForm::Object);
        assert_eq!(ResponseForm::of("application/json;stream=watch").unwrap(), ResponseForm::Object);
        let list = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(ResponseForm::of(list).unwrap(), ResponseForm::PartialMetadata);
        assert_eq!(ResponseForm::of("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
    }
}
