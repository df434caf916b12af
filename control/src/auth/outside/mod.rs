//! Questions that are sent to webhooks about who somebody is and what they may do.
//!
//! - **`answers`**: answers are kept for a while, in bounded memory, and who asks the same at the same time waits for
//!   the same answer.
//! - **`known_questions`**: which were answered well before; tokens of other issuers, too, that were good.
//! - **`places`**: how many questions about tokens are under way at a time: of strangers, of one address, and of who is
//!   known.
//! - **`review`**: the question and its answer as JSON, with retries, over a connection that a kubeconfig describes.

pub mod answers;
pub mod known_questions;
pub mod places;
pub mod review;
