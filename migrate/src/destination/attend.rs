//! While the destination works, somebody keeps the control connection: the source hears that it works, and is heard if it
//! gives up.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{chain, Error};
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::Message;

/// How often the source is listened to.
const LISTEN: Duration = Duration::from_millis(100);
/// How often it hears of us.
const SPEAK: Duration = Duration::from_millis(250);
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Works. When the source gives up meanwhile `give_up` is called, which should let the work fail soon.
pub(super) fn attend<T>(
    talk: &mut Talk,
    give_up: &(dyn Fn(&str) + Sync),
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let done = Done::default();
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let trouble = watch(talk, &done).err();
            if let Some(trouble) = &trouble {
                give_up(&chain(trouble));
            }
            trouble
        });
        let worked = {
            let _end = EndOf(&done);
            work()
        };
        match watcher.join() {
            Ok(Some(trouble)) => Err(trouble),
            Ok(None) => worked,
            Err(_) => Err(Error::Injected("the control connection's thread panicked".to_owned())),
        }
    })
}

fn watch(talk: &mut Talk, done: &Done) -> Result<(), Error> {
    let mut spoken = Instant::now();
    while !done.wait(LISTEN) {
        talk.glance()?;
        if spoken.elapsed() >= SPEAK {
            talk.channel().send(&Message::Working, &[], Deadline::after(PATIENCE))?;
            spoken = Instant::now();
        }
    }
    Ok(())
}

/// Whether the work is done.
#[derive(Default)]
struct Done {
    flag: Mutex<bool>,
    changed: Condvar,
}

impl Done {
    fn wait(&self, patience: Duration) -> bool {
        let flag = self.flag.lock().unwrap_or_else(PoisonError::into_inner);
        *self
            .changed
            .wait_timeout_while(flag, patience, |done| !*done)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

/// Says so when dropped, by a panic as well.
struct EndOf<'a>(&'a Done);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        *self.0.flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}
