//! The operator's hooks: when they run and what they are told, and the two that come with FastMig at their real work.

mod around;
mod haproxy;
mod network;

use crate::framework::Case;

pub(super) const CASES: &[&[Case]] = &[around::CASES, haproxy::CASES, network::CASES];
