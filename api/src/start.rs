//! How a container's application comes up the next time, as its operator has said.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ErrorInfo;
use crate::request::{checkpoint_name, Checked};

/// How the application comes up when its container starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartMode {
    /// From scratch.
    Run,
    /// From a checkpoint.
    Restore,
    /// Not yet.
    Standby,
}

/// `POST /v1/containers/{id}/start-options`: all of it anew; what is left out is as the container's creator has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StartOptions {
    /// How the application comes up when its container starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<StartMode>,
    /// With the mode `restore`: `latest`, or one of the daemon's checkpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Arguments after the command's own.
    pub arguments: Vec<String>,
    /// Variables that it does not get.
    pub unset: Vec<String>,
    /// Variables that it gets.
    pub environment: BTreeMap<String, String>,
}

impl Checked for StartOptions {
    /// The rest is for the host to judge, as in a file of its own.
    fn check(&self) -> Result<(), ErrorInfo> {
        self.checkpoint.as_deref().map_or(Ok(()), |name| checkpoint_name("checkpoint", name))
    }
}

/// `GET /v1/containers/{id}/start-options`: what was said. The values of variables, which may be secrets, are not told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartOptionsShown {
    /// Whether anything was said.
    pub said: bool,
    /// As in the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<StartMode>,
    /// As in the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// How many arguments follow the command's own.
    pub arguments: usize,
    /// Variables that it does not get.
    pub unset: Vec<String>,
    /// The names of variables that it gets.
    pub environment: Vec<String>,
}
