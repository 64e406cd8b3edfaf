//! Several processes that are asked as one: the first forks the others and asks them through pipes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::unistd::{pipe, ForkResult};
use serde_json::{json, Value};

use crate::sys::fork_process;

/// A child as its parent sees it.
#[derive(Debug)]
struct Child {
    number: usize,
    requests: File,
    answers: BufReader<File>,
}

/// The children of a process.
#[derive(Debug, Default)]
pub(crate) struct Family(Mutex<Vec<Child>>);

/// Where a process stands in its family.
#[derive(Debug)]
pub(crate) enum Role {
    /// The one that answers to the outside.
    Parent(Family),
    /// One that answers to the first.
    Child(Requests),
}

/// Where a child hears its parent.
#[derive(Debug)]
pub(crate) struct Requests {
    requests: BufReader<File>,
    answers: File,
    /// Its number; the parent has 0.
    pub(crate) number: usize,
}

impl Family {
    /// Becomes so many processes. There must be no thread yet.
    pub(crate) fn fork(processes: usize) -> Result<Role> {
        let mut children = Vec::new();
        for number in 1..processes {
            let (requests, to_child) = pipe()?;
            let (from_child, answers) = pipe()?;
            match fork_process().with_context(|| format!("cannot fork process {number}"))? {
                ForkResult::Parent { .. } => children.push(Child {
                    number,
                    requests: to_child.into(),
                    answers: BufReader::new(from_child.into()),
                }),
                ForkResult::Child => {
                    // Or an older brother would not see the end of its parent.
                    drop((children, to_child, from_child));
                    let requests = BufReader::new(requests.into());
                    return Ok(Role::Child(Requests { requests, answers: answers.into(), number }));
                }
            }
        }
        Ok(Role::Parent(Self(Mutex::new(children))))
    }

    /// Asks all children, at the same time; answers by number.
    pub(crate) fn ask(&self, request: &str) -> Vec<Value> {
        let mut children = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sent: Vec<_> = children.iter_mut().map(|child| writeln!(child.requests, "{request}")).collect();
        let answers = children.iter_mut().zip(sent).map(|(child, sent)| {
            sent.and_then(|()| child.answer()).unwrap_or_else(|error| {
                json!({ "ok": false, "wrong": format!("process {} does not answer: {error}", child.number) })
            })
        });
        answers.collect()
    }
}

impl Child {
    fn answer(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Requests {
    /// Answers until the parent has gone.
    pub(crate) fn serve(mut self, answer: impl Fn(&str) -> Value) -> Result<()> {
        let mut line = String::new();
        while self.requests.read_line(&mut line)? > 0 {
            writeln!(self.answers, "{}", answer(line.trim()))?;
            line.clear();
        }
        Ok(())
    }
}

/// One check out of those of all processes: all are `ok` or the first that is not, and the sum of their pages.
pub(crate) fn all_ok(checks: &[Value]) -> Value {
    let pages: u64 = checks.iter().filter_map(|check| check["pages"].as_u64()).sum();
    let wrong = checks.iter().find(|check| check["ok"] != true).map(|check| check["wrong"].clone());
    json!({ "ok": wrong.is_none(), "pages": pages, "processes": checks.len(), "wrong": wrong })
}

/// The sum of a number that all of them told.
pub(crate) fn sum(answers: &[Value], name: &str) -> u64 {
    answers.iter().filter_map(|answer| answer[name].as_u64()).sum()
}
