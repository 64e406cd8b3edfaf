//! Images of CRIU's that are whole, and that the manifest vouches for, but of processes that never were.

use std::fs;

use anyhow::{ensure, Context, Result};

use super::Ends::{Either, Harmless, Refused};
use super::Hostile;
use crate::suites::security::craft::{Checkpoint, Message, Value, ROOT};
use crate::suites::security::stage::Stage;

// The fields of CRIU's images, by their messages' names.
mod core {
    pub(super) const TASK: u64 = 3;
    pub(super) const THREAD: u64 = 5;
}
mod task {
    pub(super) const RLIMITS: u64 = 8;
    pub(super) const CGROUPS: u64 = 9;
    pub(super) const OOM_SCORE_ADJ: u64 = 14;
}
mod thread {
    pub(super) const NICE: u64 = 3;
    pub(super) const POLICY: u64 = 4;
    pub(super) const PRIORITY: u64 = 5;
    pub(super) const CREDS: u64 = 10;
    pub(super) const SECCOMP_MODE: u64 = 11;
    pub(super) const SECCOMP_FILTER: u64 = 12;
}
mod creds {
    /// From the real user to the group of the file system.
    pub(super) const IDS: std::ops::RangeInclusive<u64> = 1..=8;
    pub(super) const INHERITABLE: u64 = 9;
    pub(super) const PERMITTED: u64 = 10;
    pub(super) const EFFECTIVE: u64 = 11;
    pub(super) const BOUNDING: u64 = 12;
    pub(super) const NO_NEW_PRIVS: u64 = 18;
    pub(super) const AMBIENT: u64 = 19;
}
mod ids {
    pub(super) const PID: u64 = 5;
    pub(super) const NET: u64 = 6;
    pub(super) const UTS: u64 = 8;
    pub(super) const MNT: u64 = 9;
    pub(super) const USER: u64 = 10;
    pub(super) const CGROUP: u64 = 11;
}
mod pstree {
    pub(super) const PID: u64 = 1;
    pub(super) const PARENT: u64 = 2;
    pub(super) const GROUP: u64 = 3;
    pub(super) const SESSION: u64 = 4;
    pub(super) const THREADS: u64 = 5;
}

/// CAP_SYS_ADMIN, which CRIU has and the container has not.
const SYS_ADMIN: u64 = 1 << 21;

/// What no image may bring a process to.
const TOO_MUCH: &[&str] = &["gives", "more than container"];

pub(super) const IMAGES: &[Hostile] = &[
    Hostile {
        name: "a capability that the container has not",
        make: |image| capabilities(image, &[creds::PERMITTED, creds::EFFECTIVE, creds::BOUNDING], SYS_ADMIN),
        ends: Refused(TOO_MUCH),
    },
    Hostile {
        name: "such a one, for later",
        make: |image| capabilities(image, &[creds::INHERITABLE, creds::BOUNDING], SYS_ADMIN),
        ends: Refused(TOO_MUCH),
    },
    Hostile {
        name: "such a one, for whatever it executes",
        make: |image| {
            let sets = [creds::PERMITTED, creds::INHERITABLE, creds::AMBIENT, creds::BOUNDING];
            capabilities(image, &sets, SYS_ADMIN)
        },
        ends: Refused(TOO_MUCH),
    },
    Hostile {
        name: "such a one, in its bounding set",
        make: |image| capabilities(image, &[creds::BOUNDING], SYS_ADMIN),
        ends: Refused(TOO_MUCH),
    },
    Hostile {
        name: "every capability",
        make: |image| {
            let sets = [creds::PERMITTED, creds::EFFECTIVE, creds::INHERITABLE, creds::BOUNDING];
            capabilities(image, &sets, (1 << 41) - 1)
        },
        ends: Refused(&[]),
    },
    Hostile {
        name: "it may gain privileges",
        make: |image| credentials(image, |creds| creds.set_number(creds::NO_NEW_PRIVS, 0)),
        ends: Refused(&["it may gain new privileges"]),
    },
    Hostile {
        name: "without a seccomp filter",
        make: |image| {
            thread(image, |thread| {
                thread.0.retain(|(field, _)| *field != thread::SECCOMP_FILTER);
                thread.set_number(thread::SECCOMP_MODE, 0);
            })
        },
        ends: Refused(&["it has no seccomp filter"]),
    },
    Hostile {
        name: "before all others of the host",
        make: |image| {
            thread(image, |thread| {
                thread.set_number(thread::POLICY, 1);
                thread.set_number(thread::PRIORITY, 50);
            })
        },
        // A kernel that gives each cgroup its share of real time refuses by itself, and CRIU goes on.
        ends: Either(&["real-time scheduling"], |stage| {
            let policies = of_the_application(stage, |pid| field_of_stat(stage, pid, 38))?;
            ensure!(policies.iter().all(|policy| policy == "0"), "scheduled by policies {policies:?}");
            Ok(())
        }),
    },
    Hostile {
        name: "nicer to itself than to others",
        // As a signed number is written here, 2n - 1 is -n.
        make: |image| thread(image, |thread| thread.set_number(thread::NICE, 39)),
        // CRIU goes on where it lacks the capability for it.
        ends: Either(&["a nice value of -20"], |stage| {
            let nice = of_the_application(stage, |pid| field_of_stat(stage, pid, 16))?;
            ensure!(nice.iter().all(|nice| nice == "0"), "nice values {nice:?}");
            Ok(())
        }),
    },
    Hostile {
        name: "never killed when memory is short",
        make: |image| task(image, |task| task.set_number(task::OOM_SCORE_ADJ, u64::MAX - 999)),
        ends: Harmless(|stage| {
            let own = proc_file(stage, stage.container.status()?.pid, "oom_score_adj")?;
            let scores = of_the_application(stage, |pid| proc_file(stage, pid, "oom_score_adj"))?;
            ensure!(scores.iter().all(|score| *score == own), "{scores:?}, not {own:?}");
            Ok(())
        }),
    },
    Hostile {
        name: "more open files than the container's limit",
        make: |image| {
            task(image, |task| {
                drop(task.within(task::RLIMITS, |limits| {
                    // RLIMIT_NOFILE, the eighth.
                    let entry = Message(vec![(1, Value::Number(65536)), (2, Value::Number(65536))]);
                    if let Some((_, value)) = limits.0.get_mut(7) {
                        *value = Value::Bytes(entry.bytes());
                    }
                }));
            })
        },
        ends: Harmless(|stage| {
            let first = open_files(&proc_file(stage, stage.container.status()?.pid, "limits")?);
            let found = of_the_application(stage, |pid| proc_file(stage, pid, "limits"))?;
            ensure!(found.iter().all(|limits| open_files(limits) == first), "not {first:?}");
            Ok(())
        }),
    },
    Hostile {
        name: "in cgroups of its choice",
        make: |image| task(image, |task| task.set_number(task::CGROUPS, 7)),
        ends: Harmless(|stage| {
            let own = proc_file(stage, stage.container.status()?.pid, "cgroup")?;
            let found = of_the_application(stage, |pid| proc_file(stage, pid, "cgroup"))?;
            // The application has a cgroup of its own below the container's.
            let below = |found: &String| found.lines().zip(own.lines()).all(|(f, o)| f.starts_with(o));
            ensure!(found.iter().all(below), "{found:?}, not below {own:?}");
            Ok(())
        }),
    },
    Hostile { name: "mounts of its own", make: |image| mounts(image), ends: Refused(&[]) },
    Hostile { name: "a network of its own", make: |image| namespace(image, ids::NET), ends: Refused(&[]) },
    Hostile { name: "a host name of its own", make: |image| namespace(image, ids::UTS), ends: Refused(&[]) },
    Hostile {
        name: "process numbers of its own",
        make: |image| namespace(image, ids::PID),
        ends: Refused(&[]),
    },
    Hostile { name: "users of its own", make: |image| namespace(image, ids::USER), ends: Refused(&[]) },
    Hostile {
        name: "a view of cgroups of its own",
        make: |image| namespace(image, ids::CGROUP),
        ends: Harmless(|stage| {
            let place = |pid: i32| stage.host.cmd(["readlink", &format!("/proc/{pid}/ns/cgroup")]).ok();
            let own = place(stage.container.status()?.pid)?;
            ensure!(of_the_application(stage, place)?.iter().all(|found| *found == own), "another view");
            Ok(())
        }),
    },
    Hostile {
        name: "the number of the container's init",
        make: |image| first(image, |root| root.set_number(pstree::PID, 1)),
        ends: Refused(&[]),
    },
    Hostile {
        name: "its own parent",
        make: |image| second(image, |child| child.set_number(pstree::PARENT, 1002)),
        ends: Refused(&[]),
    },
    Hostile {
        name: "a parent that is not there",
        make: |image| second(image, |child| child.set_number(pstree::PARENT, 4711)),
        ends: Refused(&[]),
    },
    Hostile {
        name: "two roots",
        make: |image| second(image, |child| child.set_number(pstree::PARENT, 0)),
        ends: Refused(&[]),
    },
    Hostile {
        name: "in the init's session and group",
        make: |image| {
            second(image, |child| {
                child.set_number(pstree::GROUP, 1);
                child.set_number(pstree::SESSION, 1);
            })
        },
        ends: Refused(&[]),
    },
    Hostile {
        name: "the init as one of its threads",
        make: |image| second(image, |child| child.0.push((pstree::THREADS, Value::Number(1)))),
        ends: Refused(&[]),
    },
    Hostile {
        name: "a number below nothing",
        make: |image| second(image, |child| child.set_number(pstree::PID, u64::MAX - 6)),
        ends: Refused(&[]),
    },
    Hostile {
        name: "no processes",
        make: |image| {
            image.image("pstree.img", Vec::clear)?;
            image.seal()
        },
        ends: Refused(&[]),
    },
    Hostile {
        name: "a file above the container's root",
        make: |image| open(image, "/../../../../../../srv/outside/secret"),
        ends: Refused(&["srv/outside/secret"]),
    },
    Hostile {
        name: "a file beside CRIU's directories",
        make: |image| open(image, "/proc/self/cwd/../../srv/outside/secret"),
        ends: Refused(&[]),
    },
    Hostile {
        name: "the state that FastMig keeps",
        make: |image| open(image, "/proc/self/cwd/../default/hostile/state.json"),
        ends: Refused(&[]),
    },
    Hostile {
        name: "a file of the init's root",
        make: |image| open(image, "/proc/1/root/../../srv/outside/secret"),
        ends: Refused(&[]),
    },
    Hostile {
        name: "a deleted file that is a disk",
        make: |image| {
            image.head("ghost-file-1.img", |ghost| {
                ghost.set_number(3, 0o060_666);
                ghost.set_number(6, 254 << 20);
            })?;
            image.seal()
        },
        ends: Refused(&[]),
    },
    Hostile {
        name: "an image of four gibibytes by its own words",
        make: |image| {
            let path = image.path("core-1001.img");
            let mut bytes = fs::read(&path)?;
            bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
            fs::write(path, bytes)?;
            image.seal()
        },
        ends: Refused(&[]),
    },
    Hostile {
        name: "an image that ends in a message",
        make: |image| {
            let bytes = fs::read(image.path("core-1001.img"))?;
            fs::write(image.path("core-1001.img"), &bytes[..bytes.len() / 2])?;
            image.seal()
        },
        ends: Refused(&[]),
    },
    Hostile {
        name: "an image of another kind",
        make: |image| {
            fs::copy(image.path("files.img"), image.path("pstree.img"))?;
            image.seal()
        },
        ends: Refused(&[]),
    },
    Hostile {
        name: "an empty image",
        make: |image| {
            fs::write(image.path("inventory.img"), "")?;
            image.seal()
        },
        ends: Refused(&[]),
    },
    Hostile {
        name: "memory where the kernel is",
        make: |image| {
            image.message("mm-1001.img", |mm| {
                mm.within(14, |area| {
                    area.set_number(1, 0xffff_8000_0000_0000);
                    area.set_number(2, 0xffff_8000_0010_0000);
                })
            })?;
            image.seal()
        },
        ends: Refused(&[]),
    },
    Hostile {
        name: "pages where there is no memory",
        make: |image| {
            image.image("pagemap-1001.img", |entries| {
                if let Some(entry) = entries.get_mut(1) {
                    entry.set_number(1, 0x1000);
                    entry.set_number(2, u64::from(u32::MAX));
                }
            })?;
            image.seal()
        },
        ends: Refused(&[]),
    },
    Hostile {
        name: "pages of an earlier checkpoint",
        make: |image| {
            image.image("pagemap-1001.img", |entries| {
                if let Some(entry) = entries.get_mut(1) {
                    entry.set_number(4, 1);
                }
            })?;
            image.seal()
        },
        ends: Refused(&[]),
    },
];

/// For a container whose user is not root and where nobody gains privileges.
pub(super) const AS_USER: &[Hostile] = &[
    Hostile {
        name: "root, with what the container would give root",
        make: |image| {
            let sets = [creds::PERMITTED, creds::EFFECTIVE];
            credentials(image, |creds| creds::IDS.for_each(|field| creds.set_number(field, 0)))?;
            capabilities(image, &sets, 1 << 10)
        },
        ends: Refused(&["nobody can gain"]),
    },
    Hostile {
        name: "root, without any capability",
        make: |image| credentials(image, |creds| creds::IDS.for_each(|field| creds.set_number(field, 0))),
        ends: Refused(&["user 0, whom nobody can become"]),
    },
    Hostile {
        name: "another user",
        make: |image| credentials(image, |creds| creds.set_number(5, 1001)),
        ends: Refused(&["user 1001, whom nobody can become"]),
    },
    Hostile {
        name: "a user with a capability of the container's",
        make: |image| capabilities(image, &[creds::PERMITTED, creds::EFFECTIVE], 1 << 7),
        ends: Refused(&["nobody can gain"]),
    },
];

fn root_image() -> String {
    format!("core-{ROOT}.img")
}

fn task(image: &Checkpoint, change: impl FnOnce(&mut Message)) -> Result<()> {
    image.message(&root_image(), |message| message.within(core::TASK, change))?;
    image.seal()
}

fn thread(image: &Checkpoint, change: impl FnOnce(&mut Message)) -> Result<()> {
    image.message(&root_image(), |message| message.within(core::THREAD, change))?;
    image.seal()
}

fn credentials(image: &Checkpoint, change: impl FnOnce(&mut Message)) -> Result<()> {
    let mut result = Ok(());
    thread(image, |thread| result = thread.within(thread::CREDS, change))?;
    result
}

/// Adds capabilities to these sets, each of which is two numbers of 32 bits.
fn capabilities(image: &Checkpoint, sets: &[u64], more: u64) -> Result<()> {
    credentials(image, |creds| {
        for set in sets {
            let halves: Vec<u64> = (0..2)
                .map(|half| {
                    let mut found = creds.0.iter().filter(|(field, _)| field == set);
                    let old = match found.nth(half) {
                        Some((_, Value::Number(old))) => *old,
                        _ => 0,
                    };
                    old | more >> (32 * half) & u64::from(u32::MAX)
                })
                .collect();
            creds.0.retain(|(field, _)| field != set);
            creds.0.extend(halves.into_iter().map(|half| (*set, Value::Number(half))));
        }
        creds.0.sort_by_key(|(field, _)| *field);
    })
}

/// Says of the root that one of its namespaces is its own.
fn namespace(image: &Checkpoint, kind: u64) -> Result<()> {
    for pid in [ROOT, ROOT + 1] {
        image.message(&format!("ids-{pid}.img"), |ids| {
            let old = ids.number(kind).unwrap_or(1);
            ids.set_number(kind, old + 1000);
            Ok(())
        })?;
    }
    image.seal()
}

/// A root and processes below it, mounted anew and without what the container's creator has put over them.
fn mounts(image: &Checkpoint) -> Result<()> {
    namespace(image, ids::MNT)?;
    let inner = fs::read(image.path(&format!("ids-{ROOT}.img")))?;
    let number = Message::parse(&inner[12..])?.number(ids::MNT).context("no namespace of mounts")?;
    let text = |text: &str| Value::Bytes(text.as_bytes().to_vec());
    let mount = |fstype, id, parent, point: &str| {
        Message(vec![
            (1, Value::Number(fstype)),
            (2, Value::Number(id)),
            (3, Value::Number(id)),
            (4, Value::Number(parent)),
            (5, Value::Number(0)),
            (6, text("/")),
            (7, text(point)),
            (8, text("none")),
            (9, text("")),
        ])
    };
    let mounts = [mount(0, 1, 0, "/"), mount(1, 2, 1, "/proc")];
    image.add_image(&format!("mountpoints-{number}.img"), 0x5563_9928, &mounts)?;
    image.seal()
}

fn first(image: &Checkpoint, change: impl FnOnce(&mut Message)) -> Result<()> {
    image.message("pstree.img", |root| {
        change(root);
        Ok(())
    })?;
    image.seal()
}

fn second(image: &Checkpoint, change: impl FnOnce(&mut Message)) -> Result<()> {
    image.image("pstree.img", |processes| {
        if let Some(child) = processes.get_mut(1) {
            change(child);
        }
    })?;
    image.seal()
}

/// Lets the application have `name` open in place of its log.
fn open(image: &Checkpoint, name: &str) -> Result<()> {
    let mut found = false;
    image.image("files.img", |files| {
        for file in files {
            // A regular file: its flags, its name, and the size that it must have.
            drop(file.within(3, |regular| {
                let is_log = matches!(regular.0.iter().find(|(field, _)| *field == 6),
                    Some((_, Value::Bytes(name))) if name.ends_with(b"app.log"));
                if is_log {
                    found = true;
                    regular.set_number(2, 0o2);
                    regular.set(6, Value::Bytes(name.as_bytes().to_vec()));
                    // Neither its size nor its mode need be known.
                    regular.0.retain(|(field, _)| ![8, 10].contains(field));
                }
            }));
        }
    })?;
    ensure!(found, "the application has no log open");
    image.seal()
}

/// What `look` finds for each process of the application.
fn of_the_application(stage: &Stage, look: impl Fn(i32) -> Result<String>) -> Result<Vec<String>> {
    let first = stage.container.status()?.pid;
    let tree = stage.host.cmd(["ps", "-o", "pid=", "--ppid", &first.to_string()]).ok()?;
    let pids: Vec<i32> = tree.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    ensure!(!pids.is_empty(), "no process below the init");
    pids.into_iter().map(look).collect()
}

fn proc_file(stage: &Stage, pid: i32, name: &str) -> Result<String> {
    Ok(String::from_utf8(stage.host.read_file(&format!("/proc/{pid}/{name}"))?)?)
}

/// The field of this number after the name, from 0.
fn field_of_stat(stage: &Stage, pid: i32, number: usize) -> Result<String> {
    let stat = proc_file(stage, pid, "stat")?;
    let after_name = stat.rsplit_once(')').context("no name")?.1;
    Ok(after_name.split_whitespace().nth(number).unwrap_or_default().to_owned())
}

fn open_files(limits: &str) -> Option<String> {
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}
