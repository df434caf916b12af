//! How an object gets a name that is sent without one.

/// What a kind does with `metadata.generateName`, and with an object that has no name at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The base and a random suffix. Without a base there is no name.
    Suffixed,
    /// The base as it is: a name means something, such as an address.
    BaseAlone,
    /// The base and a random suffix; a UUID where there is no base.
    OrUuid,
}
