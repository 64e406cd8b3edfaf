//! What all containers of one shim share.

use std::sync::Arc;

use crate::events::Events;
use crate::reaper::Reaper;

/// What all containers of the shim share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) namespace: String,
    pub(crate) events: Events,
    pub(crate) reaper: Arc<Reaper>,
}
