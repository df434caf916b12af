//! Questions that are sent to webhooks about who somebody is and what they may do.
//!
//! - **`answers`**: answers are kept for a while, in bounded memory, and who asks the same at the same time waits for
//!   the same answer.
//! - **`places`**: how many questions are under way at a time, together and for one address.
//! - **`review`**: the question and its answer as JSON, with retries, over a connection that a kubeconfig describes.

pub mod answers;
pub mod places;
pub mod review;
