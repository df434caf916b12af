//! The client verbs, one file (or directory) each: what they ask of the API and how they show the answer.

pub mod api_resources;
pub mod apply;
pub mod attach;
pub mod cluster_info;
pub mod cp;
pub mod create;
pub mod delete;
pub mod describe;
pub mod exec;
pub mod expose;
pub mod get;
pub mod inspect;
pub mod logs;
mod objects;
pub mod patch;
pub mod port_forward;
pub mod relabel;
mod remote;
pub mod rollout;
pub mod run;
pub mod scale;
pub mod set;
pub mod submit;
mod target;
pub mod version;
pub mod wait;

pub use target::target;
