//! Looks whether containers came, went or changed, as long as somebody listens; and, at the start, clears away restores whose
//! maker has died.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fastmig_api::container::Application;
use fastmig_api::event::What;
use fastmig_engine::{state, Container};

use crate::daemon::Daemon;
use crate::events::About;
use crate::inventory;
use crate::task::blocking;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(1);

type Seen = HashMap<String, Application>;

/// Tells of changes until the daemon stops.
pub(crate) async fn containers(daemon: Arc<Daemon>) {
    let mut stopping = std::pin::pin!(daemon.stopping());
    let mut before: Option<Seen> = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut stopping => return,
        }
        // Nobody asks the init of every container each second for nobody's sake.
        if !daemon.bus.has_listeners() {
            before = None;
            continue;
        }
        let config = daemon.config.clone();
        let Ok(Ok(all)) = blocking(move || inventory::all(&config)).await else { continue };
        let now: Seen = all.into_iter().map(|container| (container.id, container.application)).collect();
        if let Some(before) = before.replace(now.clone()) {
            for (container, application) in changes(&before, &now) {
                let about = About { container: Some(container), ..About::default() };
                daemon.bus.publish(about, What::ContainerChanged { application });
            }
        }
    }
}

/// What is new or different; what is gone has ended.
fn changes(before: &Seen, now: &Seen) -> Vec<(String, Application)> {
    let changed = now.iter().filter(|(id, application)| before.get(*id) != Some(application));
    let gone = before.keys().filter(|id| !now.contains_key(*id));
    let mut changes: Vec<_> = changed.map(|(id, application)| (id.clone(), *application)).collect();
    changes.extend(gone.map(|id| (id.clone(), Application::Ended)));
    changes.sort_by(|a, b| a.0.cmp(&b.0));
    changes
}

/// What is being restored with nobody at it is cleared away: the container is in standby then.
pub(crate) fn clear_interrupted(daemon: &Daemon) {
    let keys = state::list(&daemon.config).unwrap_or_default();
    for key in keys {
        let cleared = Container::open(daemon.config.clone(), &key).and_then(|c| c.clear_interrupted());
        match cleared {
            Ok(true) => tracing::info!(container = key.id(), "an interrupted restore was cleared away"),
            Ok(false) => {}
            // One that ends while we look is nobody's trouble.
            Err(e) => tracing::debug!(container = key.id(), error = %e.report(), "not looked at"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_changed_and_went_is_told() {
        let seen =
            |all: &[(&str, Application)]| all.iter().map(|(id, a)| ((*id).to_owned(), *a)).collect::<Seen>();
        let before =
            seen(&[("a", Application::Running), ("b", Application::Running), ("c", Application::Standby)]);
        let now =
            seen(&[("a", Application::Standby), ("c", Application::Standby), ("d", Application::Created)]);
        let expected = [("a", Application::Standby), ("b", Application::Ended), ("d", Application::Created)];
        assert_eq!(changes(&before, &now), expected.map(|(id, a)| (id.to_owned(), a)));
        assert!(changes(&now, &now).is_empty());
    }
}
