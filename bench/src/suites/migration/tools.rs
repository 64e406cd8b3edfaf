//! Whom the benchmark sets beside FastMig.

use super::tool::Tool;
use super::{clients, criu, fastmig, runc};

/// All of them, in the order in which they take turns.
pub(super) fn all() -> Vec<Box<dyn Tool>> {
    let mut tools: Vec<Box<dyn Tool>> = Vec::new();
    for strategy in fastmig::STRATEGIES {
        tools.push(Box::new(fastmig::Fastmig(strategy)));
    }
    tools.push(Box::new(runc::RuncTar));
    tools.push(Box::new(criu::PageServer));
    tools.push(Box::new(criu::LazyPages));
    tools.push(Box::new(criu::ImageStreamer));
    tools.push(Box::new(clients::PODMAN));
    tools.push(Box::new(clients::DOCKER));
    tools.push(Box::new(clients::CTR));
    tools
}
