//! What can be asked of a migration.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{mounts, name, within, yes, Checked, Tcp, MAX_SECONDS};
use crate::error::ErrorInfo;

/// The most streams that one migration may use.
pub const MAX_STREAMS: u8 = 16;

/// The most rounds of memory while the application runs.
pub const MAX_ROUNDS: u32 = 1000;

/// How an application's memory gets to the other host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// In rounds where the source host can track what the application writes, and else while it stands still.
    #[default]
    Auto,
    /// It is frozen, and all of its memory travels then.
    StopCopy,
    /// Its memory travels in rounds while it runs; what it wrote since the last one travels while it is frozen.
    PreCopy,
    /// It moves first; its memory follows while it runs at the destination. Should the source be lost meanwhile, it is lost.
    PostCopy,
    /// Rounds first; what is left after them follows.
    Hybrid,
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::StopCopy => "stop-copy",
            Self::PreCopy => "pre-copy",
            Self::PostCopy => "post-copy",
            Self::Hybrid => "hybrid",
        })
    }
}

/// What is done when rounds of memory do not come to an end, for the application writes faster than the link carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnTimeout {
    /// It is frozen all the same, for as long as the rest takes.
    #[default]
    Force,
    /// The migration is given up, and it runs on where it is.
    Abort,
    /// It gets less and less of the processor until the rest is small enough.
    Throttle,
    /// It moves, and the rest follows while it runs at the destination.
    PostCopy,
}

/// How memory is compressed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// By what the link and the processors give.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// By LZ4: cheap.
    Lz4,
    /// By Zstandard: small.
    Zstd,
}

/// What becomes of bind mounts of the host's directories that the application may write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Binds {
    /// Those that `bind_map` does not name make the migration fail.
    #[default]
    Refuse,
    /// The same path of the destination is taken to hold the same: a shared file system.
    Same,
}

/// `POST /v1/containers/{id}/migrate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateRequest {
    /// The host that it moves to: a name that this daemon knows, or `ADDRESS:PORT`.
    pub to: String,
    /// The container there that waits in standby; the one of the same name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// Whether the container is made there (same image, same spec) when there is none.
    #[serde(default)]
    pub create: bool,
    /// Whether what it wrote in its root file system travels along.
    #[serde(default = "yes")]
    pub files: bool,
    /// Mount points of volumes that travel along, besides those that the container's annotation names, or the one
    /// word `all`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// What becomes of bind mounts that it may write to.
    #[serde(default)]
    pub binds: Binds,
    /// Directories of the source host, and which ones of the destination hold the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bind_map: BTreeMap<String, String>,
    /// What becomes of established TCP connections; the container's annotation decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// How its memory travels.
    #[serde(default)]
    pub strategy: Strategy,
    /// In rounds: it is frozen when it is predicted to stand still for no longer than this, in milliseconds.
    #[serde(default = "max_downtime")]
    #[schemars(range(min = 1, max = 86_400_000))]
    pub max_downtime_ms: u64,
    /// The most rounds.
    #[serde(default = "max_rounds")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_rounds: u32,
    /// How long they may take together, in seconds.
    #[serde(default = "rounds_timeout")]
    #[schemars(range(min = 1, max = 86_400))]
    pub rounds_timeout_s: u64,
    /// What is done after that many rounds, or that long.
    #[serde(default)]
    pub on_timeout: OnTimeout,
    /// How long it waits, at the destination, for memory that follows it, while this host cannot be reached, in seconds. Then it is
    /// killed there, for it cannot run without.
    #[serde(default = "apart")]
    #[schemars(range(min = 1, max = 86_400))]
    pub post_copy_timeout_s: u64,
    /// Whether all of its memory is compared before it runs again; it stands still for that, too.
    #[serde(default)]
    pub verify: bool,
    /// How many streams carry memory, from 1 to 16; the daemon's setting decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub streams: Option<u8>,
    /// How it is compressed.
    #[serde(default)]
    pub compression: Compression,
    /// The limit for all of it, in seconds; the daemon's setting decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_s: Option<u64>,
    /// The longest time frozen before it is given up and the application runs on here, in seconds; the daemon's
    /// setting decides when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub freeze_timeout_s: Option<u64>,
    /// Whether the configured hooks run.
    #[serde(default = "yes")]
    pub hooks: bool,
    /// Whether both hosts are only asked whether it could be done; nothing stops then.
    #[serde(default)]
    pub dry_run: bool,
}

fn max_downtime() -> u64 {
    100
}

fn max_rounds() -> u32 {
    30
}

fn rounds_timeout() -> u64 {
    600
}

fn apart() -> u64 {
    600
}

impl MigrateRequest {
    /// A move to that host with the defaults.
    #[must_use]
    pub fn new(to: impl Into<String>) -> Self {
        Self {
            to: to.into(),
            into: None,
            create: false,
            files: true,
            volumes: Vec::new(),
            binds: Binds::Refuse,
            bind_map: BTreeMap::new(),
            tcp: None,
            strategy: Strategy::Auto,
            max_downtime_ms: max_downtime(),
            max_rounds: max_rounds(),
            rounds_timeout_s: rounds_timeout(),
            on_timeout: OnTimeout::Force,
            post_copy_timeout_s: apart(),
            verify: false,
            streams: None,
            compression: Compression::Auto,
            timeout_s: None,
            freeze_timeout_s: None,
            hooks: true,
            dry_run: false,
        }
    }
}

impl Checked for MigrateRequest {
    fn check(&self) -> Result<(), ErrorInfo> {
        name("to", &self.to)?;
        if let Some(into) = &self.into {
            name("into", into)?;
        }
        mounts("volumes", self.volumes.iter())?;
        mounts("bind_map", self.bind_map.keys())?;
        mounts("bind_map", self.bind_map.values())?;
        if let Some(streams) = self.streams {
            within("streams", streams.into(), MAX_STREAMS.into())?;
        }
        within("max_downtime_ms", self.max_downtime_ms, MAX_SECONDS * 1000)?;
        within("max_rounds", self.max_rounds.into(), MAX_ROUNDS.into())?;
        within("rounds_timeout_s", self.rounds_timeout_s, MAX_SECONDS)?;
        within("post_copy_timeout_s", self.post_copy_timeout_s, MAX_SECONDS)?;
        for (field, seconds) in [("timeout_s", self.timeout_s), ("freeze_timeout_s", self.freeze_timeout_s)] {
            if let Some(seconds) = seconds {
                within(field, seconds, MAX_SECONDS)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_request_has_the_defaults() {
        let request: MigrateRequest = serde_json::from_str(r#"{"to":"host-b"}"#).unwrap();
        assert_eq!(request, MigrateRequest::new("host-b"));
        request.check().unwrap();
    }

    #[test]
    fn a_wish_for_rounds_is_read() {
        let body =
            br#"{"to":"b","strategy":"pre-copy","max_downtime_ms":50,"max_rounds":5,"rounds_timeout_s":9,
            "on_timeout":"throttle","verify":true}"#;
        let wish: MigrateRequest = crate::request::parse(body).unwrap();
        assert_eq!(
            (wish.strategy, wish.on_timeout, wish.verify),
            (Strategy::PreCopy, OnTimeout::Throttle, true)
        );
        assert_eq!((wish.max_downtime_ms, wish.max_rounds, wish.rounds_timeout_s), (50, 5, 9));
    }

    #[test]
    fn a_strategy_is_shown_as_it_is_written() {
        for strategy in
            [Strategy::Auto, Strategy::StopCopy, Strategy::PreCopy, Strategy::PostCopy, Strategy::Hybrid]
        {
            assert_eq!(serde_json::to_value(strategy).unwrap(), strategy.to_string());
        }
    }

    #[test]
    fn values_out_of_bounds_are_named() {
        let mut request = MigrateRequest::new("b");
        request.streams = Some(17);
        assert_eq!(request.check().unwrap_err().to_string(), "streams: 17 is not from 1 to 16");
        request = MigrateRequest::new("");
        assert!(request.check().unwrap_err().message.starts_with("to:"));
        request = MigrateRequest { timeout_s: Some(0), ..MigrateRequest::new("b") };
        assert!(request.check().is_err());
        request = MigrateRequest { volumes: vec!["/data".into(); 600], ..MigrateRequest::new("b") };
        assert!(request.check().unwrap_err().message.contains("more than"));
        request = MigrateRequest { max_rounds: 0, ..MigrateRequest::new("b") };
        assert_eq!(request.check().unwrap_err().to_string(), "max_rounds: 0 is not from 1 to 1000");
        request = MigrateRequest { max_downtime_ms: 0, ..MigrateRequest::new("b") };
        assert!(request.check().is_err());
        request = MigrateRequest { post_copy_timeout_s: 0, ..MigrateRequest::new("b") };
        assert_eq!(request.check().unwrap_err().to_string(), "post_copy_timeout_s: 0 is not from 1 to 86400");
        request = MigrateRequest { rounds_timeout_s: MAX_SECONDS + 1, ..MigrateRequest::new("b") };
        assert!(request.check().is_err());
    }
}
