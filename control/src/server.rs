//! Composes and runs the parts of one control service.

use crate::Config;

#[derive(Debug, thiserror::Error)]
pub enum StartError {}

/// A running control service.
pub struct Running {}

pub async fn start(_config: Config) -> Result<Running, StartError> {
    Ok(Running {})
}
