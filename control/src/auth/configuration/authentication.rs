//! What an `AuthenticationConfiguration` says, and what the flags `--oidc-…` say in its terms.

use serde::Deserialize;
use serde_json::Value;

use super::{ConfigurationFileError, FileKind, Shape};

/// How people and programs of others prove who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthenticationConfiguration {
    /// One for each issuer of tokens.
    pub jwt: Vec<JwtAuthenticatorConfiguration>,
    /// Which requests need no proof.
    pub anonymous: Option<AnonymousConfiguration>,
}

/// Requests without a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AnonymousConfiguration {
    /// Whether they are let in at all, as `system:anonymous`.
    pub enabled: bool,
    /// With any of these, only requests that meet one.
    pub conditions: Vec<AnonymousCondition>,
}

/// A request that needs no credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AnonymousCondition {
    /// Of the request, wholly.
    pub path: String,
}

/// One issuer, and what its tokens mean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtAuthenticatorConfiguration {
    /// Who issues them.
    pub issuer: IssuerConfiguration,
    /// What a token must claim.
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    /// Whom a token names.
    pub claim_mappings: ClaimMappings,
    /// What must be true of them.
    pub user_validation_rules: Vec<UserValidationRule>,
}

/// Who issues tokens, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IssuerConfiguration {
    /// As tokens name it in `iss`.
    pub url: String,
    /// Where its discovery document is, if not under its own URL.
    #[serde(rename = "discoveryURL")]
    pub discovery_url: String,
    /// Whom it must prove to be: PEM; empty for the authorities that the system trusts.
    pub certificate_authority: String,
    /// A token must be for one of them.
    pub audiences: Vec<String>,
    /// Empty, or `MatchAny`.
    pub audience_match_policy: String,
    /// For servers with an egress selector, which this one has not.
    pub egress_selector_type: String,
}

/// Something that a token must claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimValidationRule {
    /// The name of a claim…
    pub claim: String,
    /// … and its value.
    pub required_value: String,
    /// Or what must be true of `claims`.
    pub expression: String,
    /// What is said where it is not.
    pub message: String,
}

/// Where the parts of a user come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimMappings {
    /// The name.
    pub username: ClaimMapping,
    /// The groups.
    pub groups: ClaimMapping,
    /// The uid.
    pub uid: ClaimMapping,
    /// Whatever else.
    pub extra: Vec<ExtraMapping>,
}

/// Where one part comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimMapping {
    /// From a claim…
    pub claim: String,
    /// … with this before it; a uid has none.
    pub prefix: Option<String>,
    /// Or what this comes to.
    pub expression: String,
}

/// One of the extra fields of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtraMapping {
    /// `example.com/team`
    pub key: String,
    /// Comes to a text, or texts.
    pub value_expression: String,
}

/// Something that must be true of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserValidationRule {
    /// About `user`.
    pub expression: String,
    /// What is said where it is not true.
    pub message: String,
}

use Shape::{Bool, List, Object, Text};

const MAPPING: Shape = Object(&[("claim", Text), ("prefix", Text), ("expression", Text)]);
const JWT: Shape = Object(&[
    (
        "issuer",
        Object(&[
            ("url", Text),
            ("discoveryURL", Text),
            ("certificateAuthority", Text),
            ("audiences", List(&Text)),
            ("audienceMatchPolicy", Text),
            ("egressSelectorType", Text),
        ]),
    ),
    (
        "claimValidationRules",
        List(&Object(&[("claim", Text), ("requiredValue", Text), ("expression", Text), ("message", Text)])),
    ),
    (
        "claimMappings",
        Object(&[
            ("username", MAPPING),
            ("groups", MAPPING),
            ("uid", Object(&[("claim", Text), ("expression", Text)])),
            ("extra", List(&Object(&[("key", Text), ("valueExpression", Text)]))),
        ]),
    ),
    ("userValidationRules", List(&Object(&[("expression", Text), ("message", Text)]))),
]);
const FILE: FileKind = FileKind {
    kind: "AuthenticationConfiguration",
    fields: &[
        ("jwt", List(&JWT)),
        ("anonymous", Object(&[("enabled", Bool), ("conditions", List(&Object(&[("path", Text)])))])),
    ],
};

impl AuthenticationConfiguration {
    /// Reads the text of a file. Whether it holds together is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigurationFileError> {
        let mut value = FILE.parse(bytes)?;
        remove_nulls(&mut value);
        Ok(serde_json::from_value(value)?)
    }
}

/// A null says nothing, as in Go.
pub(super) fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}
