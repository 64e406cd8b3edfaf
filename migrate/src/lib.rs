//! A migration between two hosts, as a transaction: before commit any failure leaves the source running, after it only the
//! destination runs.
//!
//! It knows neither containers nor HTTP: what leaves and what waits are [`ends::Leaving`] and [`ends::Waiting`].

#![forbid(unsafe_code)]

pub mod ends;
