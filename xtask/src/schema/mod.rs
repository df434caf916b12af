//! `cargo xtask schema`: brings the schema data of the built-in kinds (`control/kinds/src/schema/kubernetes`) up to
//! date.
//!
//! Types, descriptions and what is required come from k8s-openapi, which only this task compiles with its JSON schemas:
//! behind the feature `schema`, so that no other build pays for them. What k8s-openapi does not know (protobuf numbers,
//! what zero means, how lists merge) is kept from the files, where it is written by hand from the struct tags of
//! Kubernetes' Go types.

#[cfg(feature = "schema")]
mod definitions;
#[cfg(feature = "schema")]
mod refresh;

/// Refresh the schema data of the built-in kinds from k8s-openapi (maintainers, after a new version of it)
#[derive(Debug, clap::Args)]
pub struct Schema {}

impl Schema {
    /// Downloads nothing: reads the definitions that k8s-openapi brings, and writes the data of
    /// `control/kinds/src/schema`.
    #[cfg(feature = "schema")]
    pub fn run(self) -> anyhow::Result<()> {
        refresh::refresh(&crate::workspace::root().join("control/kinds/src/schema/kubernetes"), &definitions::all())
    }

    /// The same again, compiled with the schemas.
    #[cfg(not(feature = "schema"))]
    pub fn run(self) -> anyhow::Result<()> {
        let arguments = ["run", "--package", "xtask", "--features", "schema", "--", "schema"];
        crate::command::run(crate::workspace::cargo().args(arguments))
    }
}
