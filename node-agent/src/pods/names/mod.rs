//! The files by which a pod's containers know names: hosts and resolver configuration. Pure.

mod hosts;
mod resolver;

pub use hosts::hosts;
pub use resolver::{ResolvConf, resolver};
