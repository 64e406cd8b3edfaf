//! An application leaves.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastmig_api::migration::{MigrationReport, Outcome};
use fastmig_api::request::{Binds, MigrateRequest, Strategy};
use fastmig_api::{Code, ErrorInfo};
use fastmig_engine::migration::Terms;
use fastmig_engine::Container;
use fastmig_migrate::cancel::Cancel;
use fastmig_migrate::ends::{Doubt, EndError};
use fastmig_migrate::journal::Role;
use fastmig_migrate::options::Wanted;
use fastmig_migrate::phase::Phase;
use fastmig_migrate::progress::{Event, Progress};
use fastmig_migrate::source::{Plan, Source};
use fastmig_migrate::MigrationId;
use serde_json::Value;

use super::fallback::Fallback;
use super::located::{Agreed, Located};
use super::{report, Migrations};
use crate::failure::{internal, of_engine};
use crate::operations::{Ending, Job};
use crate::{ends, work};

impl Migrations {
    /// Moves an application away; returns when it is decided where it lives.
    ///
    /// # Errors
    /// When it stays, with the report among the operations.
    pub fn depart(
        &self,
        container: &Container,
        request: &MigrateRequest,
        job: &Job,
    ) -> Result<Value, ErrorInfo> {
        let peer = self.hosts.name(&request.to)?;
        let mut fallback = Fallback::default();
        let mut asked = request.clone();
        loop {
            let doubt = match self.depart_once(container, &asked, &fallback, &peer, job)? {
                Departed::Ended(answer) => return Ok(answer),
                Departed::InDoubt(doubt) => doubt,
            };
            if asked.strategy == Strategy::StopCopy {
                return Err(ErrorInfo::new(Code::Internal, doubt.reason));
            }
            let message = fallback.take(doubt);
            if fallback.is_whole {
                asked.strategy = Strategy::StopCopy;
            }
            job.tell(fastmig_api::event::What::Warning { message });
        }
    }

    /// One try. What is left to choose is tried again when rounds leave a doubt: the application runs on here.
    fn depart_once(
        &self,
        container: &Container,
        request: &MigrateRequest,
        fallback: &Fallback,
        peer: &str,
        job: &Job,
    ) -> Result<Departed, ErrorInfo> {
        let dialer = self.hosts.dialer(peer).map_err(refused)?;
        let plan = self.plan(container, request, peer, job)?;
        let terms = Terms {
            tcp: request.tcp.map(work::policy),
            files: request.files && !request.dry_run,
            volumes: work::volumes(&request.volumes)?,
            binds: binds(request),
            same: request.bind_map.keys().map(PathBuf::from).collect(),
            left: fallback.left.iter().map(|(left, _)| (left.process, left.start..left.end)).collect(),
        };
        let measured = container.measured();
        let leaving = ends::leaving(container, &plan.id.to_string(), &terms).map_err(refused)?;
        let cancel = Cancel::default();
        let teller = Teller {
            migrations: self,
            id: plan.id,
            job,
            cancel: &cancel,
            dry_run: request.dry_run,
            seen: Mutex::default(),
        };
        teller.let_be_cancelled();
        self.live.departure(plan.id, peer, container.key().id());
        let limit = Limit::begin(request.timeout_s, &cancel);
        let source = Source {
            dialer: &dialer,
            origin: self.host.as_ref(),
            hooks: self.commands.as_ref(),
            journal: &self.journal,
            progress: &teller,
            faults: self.faults.as_ref(),
            cancel: &cancel,
            counter: &self.counter,
        };
        let ended = source.run(leaving, &plan);
        self.live.ended(plan.id, Role::Source);
        for message in &ended.warnings {
            job.tell(fastmig_api::event::What::Warning { message: message.clone() });
        }
        let doubt = ended.doubt.clone().filter(|_| request.strategy == Strategy::Auto);
        if let Some(mappings) = doubt.filter(|_| !cancel.is_cancelled()) {
            return Ok(Departed::InDoubt(Doubt { reason: ended.reason.unwrap_or_default(), mappings }));
        }
        let mut report = report::ended(self.begun(&plan), &ended);
        fallback.tell(&mut report);
        report.resources = Some(work::resources(measured.so_far()));
        teller.conclude(report, &limit).map(Departed::Ended)
    }

    fn plan(
        &self,
        container: &Container,
        request: &MigrateRequest,
        peer: &str,
        job: &Job,
    ) -> Result<Plan, ErrorInfo> {
        let status = container.status().map_err(|e| of_engine(&e))?;
        // Clients give an id of their own to each container; its name is what both hosts have in common.
        let name = status.names.first().cloned().unwrap_or(status.id);
        let create = request
            .create
            .then(|| self.host.recipe(container.key(), &request.bind_map))
            .transpose()
            .map_err(refused)?;
        let agreed = Agreed { hooks: request.hooks, from: name.clone(), address: self.address.clone() };
        let wanted = Wanted {
            container: request.into.clone().unwrap_or(name),
            create,
            options: serde_json::to_value(agreed).map_err(|e| internal(&e))?,
        };
        let located = Located { operation: Some(job.id()), ..Located::at(container, request.hooks) };
        Ok(Plan {
            id: MigrationId::random().map_err(|e| internal(&e))?,
            peer: peer.to_owned(),
            wanted,
            facts: located.to_value().map_err(refused)?,
            options: report::options(request),
        })
    }

    fn begun(&self, plan: &Plan) -> MigrationReport {
        let record = self.journal.record(plan.id, Role::Source);
        match record {
            Ok(record) => report::begun(&record, &self.name),
            // It was not even written down.
            Err(_) => report::planned(plan, &self.name),
        }
    }
}

/// How one try went.
enum Departed {
    /// It is decided where the application lives.
    Ended(Value),
    /// It runs on here, for there is a doubt about memory that travelled in rounds.
    InDoubt(Doubt),
}

/// Without a word of the caller's the container's annotation decides.
fn binds(request: &MigrateRequest) -> Option<fastmig_engine::start_options::Binds> {
    (request.binds == Binds::Same).then_some(fastmig_engine::start_options::Binds::Same)
}

fn refused(error: EndError) -> ErrorInfo {
    ErrorInfo::of(Code::Refused, error.as_ref())
}

/// Whoever is told of a departure.
struct Teller<'a> {
    migrations: &'a Migrations,
    id: MigrationId,
    job: &'a Job,
    cancel: &'a Cancel,
    dry_run: bool,
    seen: Mutex<Seen>,
}

/// What decides how an end is to be called.
#[derive(Debug, Default)]
struct Seen {
    failed: Option<Phase>,
    prepared: bool,
}

impl Teller<'_> {
    fn let_be_cancelled(&self) {
        let (cancel, live, id) = (self.cancel.clone(), self.migrations.live.clone(), self.id);
        self.job.cancelled_by(move |ending| {
            match ending {
                Ending::Asked => cancel.cancel(),
                Ending::DaemonStops => cancel.leave(),
            }
            live.is_undecided(id)
        });
    }

    /// The answer to whoever asked for it.
    fn conclude(&self, mut report: MigrationReport, limit: &Limit) -> Result<Value, ErrorInfo> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if self.dry_run && seen.prepared && report.outcome == Outcome::Stayed {
            report.outcome = Outcome::Possible;
            report.reason = None;
        }
        self.job.migration(report.clone());
        let reason = || report.reason.clone().unwrap_or_else(|| "no reason was given".into());
        match report.outcome {
            Outcome::Moved | Outcome::Possible => work::report(&report),
            Outcome::Undecided | Outcome::Running => Err(ErrorInfo::new(Code::Peer, reason()).with_remedy(
                "the application stays stopped here until the destination's daemon answers; start that one",
            )),
            Outcome::Lost => Err(ErrorInfo::new(Code::Internal, reason()).with_remedy(
                "it had moved, and ended there, for it could not run without its memory; start it anew",
            )),
            Outcome::Stopped => Err(ErrorInfo::new(Code::Internal, reason()).with_remedy(
                "the application is stopped here, for it could not be thawed; that is tried again when fastmigd starts",
            )),
            Outcome::Stayed if limit.is_over() => {
                let text = format!("it took longer than the {} s that were given", limit.seconds);
                Err(ErrorInfo::new(Code::TimeLimit, text).with_remedy("the application runs on here; give it more time"))
            }
            Outcome::Stayed if self.cancel.is_cancelled() => Err(ErrorInfo::new(Code::Cancelled, reason())),
            Outcome::Stayed if seen.failed == Some(Phase::Connect) => {
                Err(ErrorInfo::new(Code::Peer, reason()).with_remedy("the application runs on here"))
            }
            // It was begun, and something failed: asking again may do.
            Outcome::Stayed if seen.prepared => {
                Err(ErrorInfo::new(Code::Internal, reason()).with_remedy("the application runs on here"))
            }
            Outcome::Stayed => {
                Err(ErrorInfo::new(Code::Refused, reason()).with_remedy("the application runs on here"))
            }
        }
    }
}

impl Progress for Teller<'_> {
    fn event(&self, event: Event) {
        if let Event::PhaseEnded { phase, failed, .. } = &event {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.prepared |= *phase == Phase::Prepare && failed.is_none();
            if failed.is_some() && seen.failed.is_none() {
                seen.failed = Some(*phase);
            }
            if self.dry_run && seen.prepared {
                self.cancel.cancel();
            }
        }
        if let Event::PhaseBegun { phase } = &event {
            self.job.phase(phase.name());
        }
        if let Some(what) = self.migrations.live.note(self.id, Role::Source, &event) {
            self.job.tell(what);
        }
    }
}

/// The limit of a whole migration: cancels it, as long as it lives.
struct Limit {
    seconds: u64,
    over: Arc<AtomicBool>,
    /// Dropped with the limit, which ends its thread.
    _alive: Option<Sender<()>>,
}

impl Limit {
    fn begin(seconds: Option<u64>, cancel: &Cancel) -> Self {
        let over = Arc::<AtomicBool>::default();
        let alive = seconds.map(|seconds| {
            let (alive, gone) = mpsc::channel();
            let (cancel, over) = (cancel.clone(), over.clone());
            std::thread::spawn(move || {
                if gone.recv_timeout(Duration::from_secs(seconds)) == Err(RecvTimeoutError::Timeout) {
                    over.store(true, Ordering::Release);
                    cancel.cancel();
                }
            });
            alive
        });
        Self { seconds: seconds.unwrap_or_default(), over, _alive: alive }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_cancels_when_it_is_over_and_not_before() {
        let cancel = Cancel::default();
        let none = Limit::begin(None, &cancel);
        let long = Limit::begin(Some(1000), &cancel);
        let short = Limit::begin(Some(1), &cancel);
        assert!(!cancel.is_cancelled());
        std::thread::sleep(Duration::from_millis(1500));
        assert!(cancel.is_cancelled());
        assert!(short.is_over() && !long.is_over() && !none.is_over());
    }
}
