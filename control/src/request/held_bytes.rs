//! How much memory an answer holds that is made while it is sent: the length of its body is not known then.

/// An extension of such an answer. What hands it out counts it until the answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBytes(pub usize);
