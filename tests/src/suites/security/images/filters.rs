//! Images of processes that would run under another seccomp filter than their container's.

use anyhow::{ensure, Result};

use super::Ends::{Harmless, Refused};
use super::Hostile;
use crate::framework::filters::{seccomp_filters, seccomp_filters_of_thread};
use crate::suites::security::craft::{Checkpoint, Message, Value, ROOT};
use crate::suites::security::stage::Stage;

// The fields of CRIU's images, by their messages' names.
const FILTERS: u64 = 1;
mod filter {
    pub(super) const PROGRAM: u64 = 1;
    pub(super) const NEXT: u64 = 2;
    pub(super) const FLAGS: u64 = 3;
}
const TASK: u64 = 3;
const THREAD: u64 = 5;
const MODE: u64 = 11;
const FILTER: u64 = 12;

/// The application's root, its child, and the root's other thread.
const THREADS: [u64; 3] = [ROOT, ROOT + 1, ROOT + 2];

/// One instruction: everything is allowed.
const ALLOW: [u8; 8] = [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f];

const WITHOUT: &[&str] = &["would leave out a seccomp filter of the container's"];

pub(super) const IMAGES: &[Hostile] = &[
    Hostile {
        name: "a filter that allows everything",
        make: |image| each_filter(image, |filter| filter.set(filter::PROGRAM, Value::Bytes(ALLOW.into()))),
        ends: Harmless(has_the_container_s),
    },
    Hostile {
        name: "the container's, with other last words",
        make: |image| {
            each_filter(image, |filter| {
                if let Some((_, Value::Bytes(program))) =
                    filter.0.iter_mut().find(|(field, _)| *field == filter::PROGRAM)
                {
                    let end = program.len().saturating_sub(ALLOW.len());
                    program.truncate(end);
                    program.extend(ALLOW);
                }
            })
        },
        ends: Harmless(has_the_container_s),
    },
    Hostile {
        name: "no filter in one thread",
        // The root's goes to its other thread as well, when it says so.
        make: |image| each_filter(image, |filter| filter.set_number(filter::FLAGS, 0)),
        ends: Refused(&["it has no seccomp filter"]),
    },
    Hostile {
        name: "a filter that allows everything in one thread",
        make: |image| {
            each_filter(image, |filter| filter.set_number(filter::FLAGS, 0))?;
            let weak = add_filter(image, &ALLOW, None)?;
            take_filter(image, &THREADS[2..], weak)
        },
        ends: Harmless(has_the_container_s),
    },
    Hostile {
        name: "a chain without the container's filter, which is in the list",
        make: |image| {
            let weak = add_filter(image, &ALLOW, None)?;
            take_filter(image, &THREADS, weak)
        },
        ends: Harmless(has_the_container_s),
    },
    Hostile {
        name: "a chain that begins after the container's filter",
        // It is named as the one that follows, and so seems to be no beginning.
        make: |image| {
            let weak = add_filter(image, &ALLOW, None)?;
            image.message("seccomp.img", |list| {
                list.within(FILTERS, |first| first.set_number(filter::NEXT, weak))
            })?;
            take_filter(image, &THREADS, weak)
        },
        ends: Refused(WITHOUT),
    },
    Hostile {
        name: "chains in a circle",
        make: |image| each_filter(image, |filter| filter.set_number(filter::NEXT, 0)),
        ends: Refused(&[]),
    },
    Hostile {
        name: "a filter without speculation's bounds",
        make: |image| each_filter(image, |filter| filter.set_number(filter::FLAGS, 1 | 4)),
        ends: Harmless(has_the_container_s),
    },
    Hostile {
        name: "a filter where images had it of old",
        make: |image| {
            let weak = add_filter(image, &ALLOW, None)?;
            image.message(&core(ROOT), |message| {
                message.within(TASK, |task| {
                    task.set_number(MODE, 2);
                    task.set_number(FILTER, weak);
                })
            })?;
            image.seal()
        },
        ends: Refused(&["says of seccomp filters what cannot be"]),
    },
    Hostile {
        name: "a filter's number that is none",
        make: |image| take_filter(image, &THREADS[..1], 4711),
        ends: Refused(&[]),
    },
    Hostile {
        name: "no list of filters",
        make: |image| {
            image.image("seccomp.img", Vec::clear)?;
            image.seal()
        },
        ends: Refused(&[]),
    },
    Hostile {
        name: "a filter more, after the container's",
        make: |image| {
            // Of the list's filters each is a thread's only one.
            let more = add_filter(image, &ALLOW, None)?;
            image.message("seccomp.img", |list| {
                list.within(FILTERS, |first| first.set_number(filter::NEXT, more))
            })?;
            image.seal()
        },
        ends: Harmless(has_the_container_s),
    },
];

fn core(thread: u64) -> String {
    format!("core-{thread}.img")
}

fn each_filter(image: &Checkpoint, change: impl Fn(&mut Message)) -> Result<()> {
    image.message("seccomp.img", |list| {
        for (_, value) in list.0.iter_mut().filter(|(field, _)| *field == FILTERS) {
            if let Value::Bytes(content) = value {
                let mut filter = Message::parse(content)?;
                change(&mut filter);
                *content = filter.bytes();
            }
        }
        Ok(())
    })?;
    image.seal()
}

/// Its number in the list.
fn add_filter(image: &Checkpoint, program: &[u8], next: Option<u64>) -> Result<u64> {
    let mut number = 0;
    image.message("seccomp.img", |list| {
        number = list.0.iter().filter(|(field, _)| *field == FILTERS).count() as u64;
        let mut filter = Message(vec![(filter::PROGRAM, Value::Bytes(program.into()))]);
        next.iter().for_each(|next| filter.set_number(filter::NEXT, *next));
        filter.set_number(filter::FLAGS, 0);
        list.0.push((FILTERS, Value::Bytes(filter.bytes())));
        Ok(())
    })?;
    image.seal()?;
    Ok(number)
}

/// Lets these threads begin with the filter of this number.
fn take_filter(image: &Checkpoint, threads: &[u64], number: u64) -> Result<()> {
    for thread in threads {
        image.message(&core(*thread), |message| {
            message.within(THREAD, |thread| {
                thread.set_number(MODE, 2);
                thread.set_number(FILTER, number);
            })
        })?;
    }
    image.seal()
}

/// Each thread of the application, besides what else it has.
fn has_the_container_s(stage: &Stage) -> Result<()> {
    let pid = stage.container.status()?.pid;
    let own = seccomp_filters(&stage.host, pid, 1)?;
    ensure!(!own.is_empty(), "the container has no filter");
    let root = i32::try_from(ROOT)?;
    for (process, thread) in [(root, root), (root + 1, root + 1), (root, root + 2)] {
        let found = seccomp_filters_of_thread(&stage.host, pid, process, thread)?;
        ensure!(own.iter().all(|own| found.contains(own)), "thread {thread} has {} filters", found.len());
    }
    Ok(())
}
