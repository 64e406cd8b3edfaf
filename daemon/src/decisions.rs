//! What the keepers of this host's containers decide, told by the daemon: as events, as figures; and keepers that were killed
//! are replaced.
//!
//! Keepers write, each decision a line, and know nothing of us: they decide just as well without a daemon.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fastmig_api::event::What;
use fastmig_engine::keeper::journal::{host_file, Entry};
use fastmig_engine::{state, Container};

use crate::daemon::Daemon;
use crate::events::About;
use crate::inventory;
use crate::task::blocking;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(1);

/// More than the keepers of one host decide in one interval; what is left is read in the next.
const MOST: u64 = 1 << 20;

/// Tells of decisions and looks after keepers until the daemon stops.
pub(crate) async fn tell(daemon: Arc<Daemon>) {
    let mut stopping = std::pin::pin!(daemon.stopping());
    let mut tail = Tail::at_the_end(&host_file(&daemon.config));
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut stopping => return,
        }
        let daemon = daemon.clone();
        let looked = blocking(move || {
            for line in tail.lines() {
                publish(&daemon, &line);
            }
            look_after_keepers(&daemon);
            tail
        });
        match looked.await {
            Ok(looked) => tail = looked,
            Err(_) => return,
        }
    }
}

fn publish(daemon: &Daemon, line: &str) {
    let Ok(entry) = serde_json::from_str::<Entry>(line) else { return };
    daemon.metrics.decided(&entry.action);
    let operation = Some(entry.operation.clone()).filter(|id| !id.is_empty());
    let about = About { container: Some(entry.container.clone()), operation, ..About::default() };
    daemon.bus.publish(about, What::PolicyDecided { decided: Box::new(inventory::decision(entry)) });
}

fn look_after_keepers(daemon: &Daemon) {
    for key in state::list(&daemon.config).unwrap_or_default() {
        match Container::open(daemon.config.clone(), &key).and_then(|container| container.ensure_keeper()) {
            Ok(true) => tracing::warn!(container = key.id(), "its keeper was killed; there is another"),
            Ok(false) => {}
            // One that ends while we look is nobody's trouble.
            Err(e) => tracing::debug!(container = key.id(), error = %e.report(), "not looked after"),
        }
    }
}

/// The end of a file that grows, and that gives way to a new one now and then.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    inode: u64,
    offset: u64,
}

impl Tail {
    /// What is there already was told by the daemon before, or by nobody.
    fn at_the_end(path: &Path) -> Self {
        let metadata = std::fs::metadata(path);
        let (inode, offset) = metadata.map_or((0, 0), |metadata| (metadata.ino(), metadata.len()));
        Self { path: path.into(), inode, offset }
    }

    /// The lines that came since.
    fn lines(&mut self) -> Vec<String> {
        let Ok(inode) = std::fs::metadata(&self.path).map(|metadata| metadata.ino()) else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        if inode != self.inode {
            let before = self.path.with_extension("jsonl.1");
            if std::fs::metadata(&before).is_ok_and(|metadata| metadata.ino() == self.inode) {
                lines.extend(self.read(&before).unwrap_or_default());
            }
            (self.inode, self.offset) = (inode, 0);
        }
        let path = self.path.clone();
        lines.extend(self.read(&path).unwrap_or_default());
        lines
    }

    fn read(&mut self, path: &Path) -> io::Result<Vec<String>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = Vec::new();
        file.take(MOST).read_to_end(&mut text)?;
        // What has no newline yet is not whole.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.offset += whole as u64;
        Ok(String::from_utf8_lossy(&text[..whole]).lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn append(path: &Path, text: &str) {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn only_whole_lines_that_came_since_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("decisions.jsonl");
        append(&path, "old\n");
        let mut tail = Tail::at_the_end(&path);
        assert!(tail.lines().is_empty());
        append(&path, "one\ntwo\nthr");
        assert_eq!(tail.lines(), ["one", "two"]);
        append(&path, "ee\n");
        std::fs::rename(&path, directory.path().join("decisions.jsonl.1")).unwrap();
        append(&path, "four\n");
        assert_eq!(tail.lines(), ["three", "four"]);
        assert!(tail.lines().is_empty());
        // Without a file there is nothing to tell, and then all of it.
        let other = directory.path().join("other");
        let mut tail = Tail::at_the_end(&other);
        assert!(tail.lines().is_empty());
        append(&other, "first\n");
        assert_eq!(tail.lines(), ["first"]);
    }
}
