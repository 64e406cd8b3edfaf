//! All phases of a departure, and the way back from each.

use std::sync::mpsc;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ask::{ask, hello, settle};
use super::{Plan, Source};
use crate::chunk::Chooser;
use crate::ends::{Files, Leaving};
use crate::error::{chain, Error};
use crate::files::StreamOut;
use crate::hooks::Stage;
use crate::id::MigrationId;
use crate::images::{MemoryServer, Meter, Pusher};
use crate::journal::{Record, Role};
use crate::options::Strategy;
use crate::phase::Phase;
use crate::phases::{milliseconds, Phases};
use crate::progress::Event;
use crate::report::{Bytes, Outcome, Report, Took};
use crate::state::State;
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::{Channel, Message, Purpose, Verdict};

/// How long the destination's ear is looked for when the migration is given up.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Pauses between tries to end what has moved.
const END_AGAIN: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

/// Moves an application.
pub(super) fn run(source: &Source<'_>, leaving: Box<dyn Leaving>, plan: &Plan) -> Report {
    let span =
        tracing::info_span!("migration", id = %plan.id, role = "source", container = plan.wanted.container);
    let _entered = span.enter();
    let chooser = Chooser::new(plan.options.compression);
    let meter = Meter::new(source.progress);
    let server = MemoryServer::new(&chooser, &meter, plan.options.limits.silence);
    let mut departure = Departure {
        source,
        plan,
        phases: Phases::new(plan.id, Role::Source, source.progress, source.faults),
        images: ImagesOut { chooser: &chooser, meter: &meter, server: &server },
        account: Account::default(),
        hooked: false,
        frozen: None,
    };
    let (outcome, reason) = thread::scope(|scope| {
        let end = departure.go(scope, leaving);
        server.stop();
        end
    });
    let report = departure.report(outcome, reason);
    // One that died, in a test, writes nothing.
    if report.reason.as_deref() != Some(&Error::Died.to_string()) {
        source.journal.report(&report, Role::Source);
    }
    report
}

type End = (Outcome, Option<String>);

/// What carries images.
#[derive(Clone, Copy)]
struct ImagesOut<'a> {
    chooser: &'a Chooser,
    meter: &'a Meter<'a>,
    server: &'a MemoryServer<'a>,
}

/// What the report needs in the end.
#[derive(Default)]
struct Account {
    warnings: Vec<String>,
    files: Files,
    file_rounds: u32,
    streams: u32,
    /// Bytes sent on the control connection.
    control: u64,
    frozen_ms: Option<u64>,
    destination: Vec<Took>,
}

/// A migration under way.
struct Departure<'a> {
    source: &'a Source<'a>,
    plan: &'a Plan,
    phases: Phases<'a>,
    images: ImagesOut<'a>,
    account: Account,
    /// The first hook was called.
    hooked: bool,
    /// When it was stopped.
    frozen: Option<Instant>,
}

/// What the destination said first.
struct Welcome {
    token: String,
    lacks_image: bool,
}

impl<'a> Departure<'a> {
    fn go<'scope>(&mut self, scope: &'scope Scope<'scope, '_>, mut leaving: Box<dyn Leaving>) -> End
    where
        'a: 'scope,
    {
        let plan = self.plan;
        let record = Record::new(plan.id, Role::Source, &plan.peer, plan.wanted.clone(), plan.facts.clone());
        if let Err(error) = self.source.journal.begin(record) {
            return (Outcome::Stayed, Some(chain(&error)));
        }
        let (mut talk, welcome) = match self.connect() {
            Ok(connected) => connected,
            Err(error) => return self.go_back(None, leaving, &error),
        };
        let held = self.travel(scope, &mut talk, &welcome, leaving.as_mut());
        match held {
            Ok(()) => self.decide(talk, leaving),
            Err(error) => self.go_back(Some(talk), leaving, &error),
        }
    }

    fn connect(&mut self) -> Result<(Talk, Welcome), Error> {
        let (source, plan) = (self.source, self.plan);
        let limits = &plan.options.limits;
        self.phases.run(Phase::Connect, limits.connect + limits.prepare, |deadline| {
            let connection = source.dialer.dial().map_err(Error::Dial)?;
            let channel = Channel::open(connection, plan.id, 0);
            let mut talk = Talk::asking(channel, source.cancel.clone(), limits.silence);
            let frozen_ms = milliseconds(limits.frozen);
            let purpose = Purpose::Migrate { wanted: plan.wanted.clone(), frozen_ms };
            talk.say(&hello(purpose), &[], deadline)?;
            let welcome = talk.expect("welcome", deadline, |message| match message {
                Message::Welcome { token: Some(token), lacks_image, .. } => {
                    Some(Welcome { token, lacks_image })
                }
                _ => None,
            })?;
            Ok((talk, welcome))
        })
    }

    /// Everything up to a destination that holds the restored application.
    fn travel<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        talk: &mut Talk,
        welcome: &Welcome,
        leaving: &mut dyn Leaving,
    ) -> Result<(), Error>
    where
        'a: 'scope,
    {
        if welcome.lacks_image {
            self.send_image(talk)?;
        }
        self.prepare(talk, leaving)?;
        self.files_while_running(talk, leaving)?;
        self.ready(scope, talk, leaving, &welcome.token)?;
        match self.plan.options.strategy {
            // Rounds of memory would travel here, before the freeze.
            Strategy::StopCopy => {}
        }
        self.freeze(talk, leaving)?;
        let last_files = self.last_files(talk, leaving)?;
        let dumped = self.dump(talk, leaving)?;
        self.hook(Phase::PostCheckpoint, Stage::PostCheckpoint)?;
        self.restore(talk, leaving, dumped, last_files)
    }

    fn send_image(&mut self, talk: &mut Talk) -> Result<(), Error> {
        let (source, plan) = (self.source, self.plan);
        self.phases.run(Phase::Image, plan.options.limits.image, |deadline| {
            let mut out = StreamOut::new(talk, deadline);
            let sent = source.origin.send_image(&plan.wanted, &mut out);
            out.finish(sent.map_err(Error::end("send the container's image")))?;
            talk.patiently(|talk| talk.expect_done(deadline))
        })
    }

    fn prepare(&mut self, talk: &mut Talk, leaving: &mut dyn Leaving) -> Result<(), Error> {
        self.phases.run(Phase::Prepare, self.plan.options.limits.prepare, |deadline| {
            let passport = leaving.passport().map_err(Error::end("let the application leave"))?;
            talk.say(&Message::Passport { passport }, &[], deadline)?;
            talk.expect_done(deadline)
        })
    }

    /// Rounds of files, until little has changed in the last.
    fn files_while_running(&mut self, talk: &mut Talk, leaving: &mut dyn Leaving) -> Result<(), Error> {
        let options = &self.plan.options;
        if options.file_rounds == 0 {
            return Ok(());
        }
        let limits = &options.limits;
        let account = &mut self.account;
        self.phases.run(Phase::Files, limits.files, |deadline| {
            for _ in 0..options.file_rounds {
                let files = send_files(talk, leaving, false, deadline)?;
                hear_files(talk, deadline)?;
                account.count(files);
                self.source.progress.event(Event::Files {
                    round: account.file_rounds,
                    entries: files.entries,
                    bytes: files.bytes,
                });
                if files.bytes < options.small_round {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Both ends start what they need, and the data connections are made.
    fn ready<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        talk: &mut Talk,
        leaving: &mut dyn Leaving,
        token: &str,
    ) -> Result<(), Error>
    where
        'a: 'scope,
    {
        let (source, plan, server) = (self.source, self.plan, self.images.server);
        let account = &mut self.account;
        self.phases.run(Phase::Ready, plan.options.limits.ready, |deadline| {
            talk.say(&Message::Ready, &[], deadline)?;
            let (made, connections) = mpsc::channel();
            let streams = plan.options.streams.max(1);
            for lane in 1..=streams {
                let (made, token) = (made.clone(), token.to_owned());
                scope.spawn(move || {
                    let opened = open_data(source, plan, token, lane, deadline);
                    match opened {
                        Ok(mut channel) => {
                            drop(made.send(None));
                            // Nobody waits for this thread any more.
                            drop(made);
                            server.serve(&mut channel);
                        }
                        Err(error) => drop(made.send(Some(error))),
                    }
                });
            }
            drop(made);
            leaving.ready().map_err(Error::end("start the dump"))?;
            let mut last = None;
            for opened in connections {
                match opened {
                    None => account.streams += 1,
                    Some(error) => {
                        account.warnings.push(format!("a data connection is missing: {}", chain(&error)));
                        last = Some(error);
                    }
                }
            }
            match last {
                Some(error) if account.streams == 0 => Err(error),
                _ => talk.expect_done(deadline),
            }
        })
    }

    /// The operator's commands, then the application stops.
    fn freeze(&mut self, talk: &mut Talk, leaving: &mut dyn Leaving) -> Result<(), Error> {
        talk.check()?;
        self.source.journal.step(self.plan.id, Role::Source, State::Frozen, None)?;
        self.hooked = true;
        self.hook(Phase::PreCheckpoint, Stage::PreCheckpoint)?;
        let limits = &self.plan.options.limits;
        let frozen = &mut self.frozen;
        self.phases.run(Phase::Freeze, limits.frozen, |_| {
            // Nothing is to stop for a destination that has left meanwhile.
            talk.glance()?;
            talk.freeze(limits.frozen);
            let begun = Instant::now();
            leaving.freeze().map_err(Error::end("stop the application"))?;
            *frozen = Some(begun);
            Ok(())
        })
    }

    /// The files that changed since the last round. Whether the destination's word about them is still to come.
    fn last_files(&mut self, talk: &mut Talk, leaving: &mut dyn Leaving) -> Result<bool, Error> {
        if self.plan.options.file_rounds == 0 {
            return Ok(false);
        }
        let account = &mut self.account;
        self.phases.run(Phase::LastFiles, self.plan.options.limits.frozen, |deadline| {
            let files = send_files(talk, leaving, true, deadline)?;
            account.count(files);
            Ok(true)
        })
    }

    fn dump(&mut self, talk: &mut Talk, leaving: &mut dyn Leaving) -> Result<Value, Error> {
        let images = self.images;
        self.phases.run(Phase::Dump, self.plan.options.limits.frozen, |deadline| {
            let mut pusher = Pusher::new(talk, images.chooser, images.meter, deadline);
            let dumped = leaving.dump(&mut pusher);
            pusher.finish(dumped.map_err(Error::end("dump the application")))
        })
    }

    /// The destination restores, and asks for memory meanwhile.
    fn restore(
        &mut self,
        talk: &mut Talk,
        leaving: &mut dyn Leaving,
        dumped: Value,
        last_files: bool,
    ) -> Result<(), Error> {
        let images = self.images;
        self.phases.run(Phase::Restore, self.plan.options.limits.frozen, |deadline| {
            let memory = leaving.memory().map_err(Error::end("read the application's memory"))?;
            let memory = images.server.show(memory);
            images.meter.expect(memory.iter().map(|(_, size)| size).sum());
            talk.say(&Message::Dumped { dumped, memory }, &[], deadline)?;
            if last_files {
                hear_files(talk, deadline)?;
            }
            talk.expect("held", deadline, |message| matches!(message, Message::Held).then_some(()))
        })
    }

    /// The destination decides. From the commit on there is no way back but by its word.
    fn decide(&mut self, mut talk: Talk, mut leaving: Box<dyn Leaving>) -> End {
        let (journal, id) = (self.source.journal, self.plan.id);
        let limits = &self.plan.options.limits;
        let mut sent = false;
        let phases = &mut self.phases;
        let points = phases.points();
        let committed = phases.run(Phase::Commit, limits.commit, |deadline| {
            leaving.fence().map_err(Error::end("make sure that the application stays stopped"))?;
            points.at("fenced")?;
            journal.step(id, Role::Source, State::Deciding, None)?;
            points.at("deciding")?;
            talk.check()?;
            talk.decide();
            sent = true;
            talk.say(&Message::Commit, &[], deadline)?;
            points.at("commit-sent")?;
            talk.expect("committed", deadline, |message| match message {
                Message::Committed { trouble } => Some(trouble),
                _ => None,
            })
        });
        match committed {
            Ok(trouble) => {
                self.account.warnings.extend(trouble.map(|trouble| format!("at the destination: {trouble}")));
                self.end(Some(talk), leaving)
            }
            Err(error) if !sent || matches!(error, Error::Refused(_) | Error::Died) => {
                self.go_back(Some(talk), leaving, &error)
            }
            Err(error) => {
                self.account.control += talk.bytes_sent();
                // With the connection gone, a destination that has not committed gives up by itself.
                drop(talk);
                self.ask(leaving, &error)
            }
        }
    }

    /// The answer to the commit is lost.
    fn ask(&mut self, leaving: Box<dyn Leaving>, error: &Error) -> End {
        let source = self.source;
        let limits = &self.plan.options.limits;
        tracing::warn!(reason = chain(error), "the commit was not answered");
        match ask(source.dialer, self.plan.id, limits, source.progress, source.cancel) {
            Some(Verdict::Committed) => {
                self.account
                    .warnings
                    .push(format!("the commit's answer was lost ({}) and asked for", chain(error)));
                self.end(None, leaving)
            }
            Some(Verdict::Aborted) => self.go_back(None, leaving, error),
            None => {
                let reason = format!("{}; the destination's decision is not known", chain(error));
                // It stays fenced: only forgotten by this process, for the next start to find.
                drop(leaving);
                (Outcome::Undecided, Some(reason))
            }
        }
    }

    /// It lives on the destination.
    fn end(&mut self, talk: Option<Talk>, leaving: Box<dyn Leaving>) -> End {
        self.account.frozen_ms = self.frozen.map(|frozen| milliseconds(frozen.elapsed()));
        let (source, id) = (self.source, self.plan.id);
        self.images.server.stop();
        source.journal.note_step(id, Role::Source, State::Committed, None);
        let mut leaving = Some(leaving);
        let ended = self.phases.run(Phase::End, self.plan.options.limits.finish, |_| {
            let ended = leaving.take().map_or(Ok(()), Leaving::end);
            ended.map_err(Error::end("end the application that has moved"))
        });
        let ended = match ended {
            Err(Error::Died) => return (Outcome::Undecided, Some(Error::Died.to_string())),
            Err(error) => end_again(source, id, leaving, error),
            Ok(()) => Ok(()),
        };
        let done = ended.and_then(|()| Ok(source.journal.step(id, Role::Source, State::Done, None)?));
        let done = match done {
            Ok(()) => true,
            Err(error) => {
                let reason = chain(&error);
                self.account
                    .warnings
                    .push(format!("{reason}; it stays stopped, and is ended at the next start"));
                false
            }
        };
        if let Err(error) = self.finish(talk, done) {
            if matches!(error, Error::Died) {
                return (Outcome::Undecided, Some(error.to_string()));
            }
            self.account.warnings.push(format!("the destination's report is missing: {}", chain(&error)));
        }
        (Outcome::Moved, None)
    }

    /// The destination's part of the report; then neither needs the other any more.
    fn finish(&mut self, talk: Option<Talk>, done: bool) -> Result<(), Error> {
        let (source, id) = (self.source, self.plan.id);
        let limits = &self.plan.options.limits;
        let account = &mut self.account;
        let finished = self.phases.run(Phase::Finish, limits.finish, |deadline| {
            let Some(mut talk) = talk else {
                return Ok(false);
            };
            let finished = talk.expect("finished", deadline, |message| match message {
                Message::Finished { took, warnings } => Some((took, warnings)),
                _ => None,
            });
            account.control += talk.bytes_sent();
            let (took, warnings) = finished?;
            account.destination = took;
            account
                .warnings
                .extend(warnings.into_iter().map(|warning| format!("at the destination: {warning}")));
            if done {
                talk.say(&Message::Settled, &[], deadline)?;
            }
            Ok(done)
        });
        let told = match &finished {
            Ok(told) => *told,
            Err(Error::Died) => return finished.map(|_| ()),
            Err(_) => false,
        };
        if done && (told || settle(source.dialer, id, limits).is_ok()) {
            source.journal.settle(id, Role::Source)?;
        }
        finished.map(|_| ())
    }

    /// It runs on here. That comes first; then everybody is told.
    fn go_back(&mut self, talk: Option<Talk>, leaving: Box<dyn Leaving>, error: &Error) -> End {
        let reason = chain(error);
        if matches!(error, Error::Died) {
            return (Outcome::Undecided, Some(reason));
        }
        tracing::warn!(reason, "the migration is given up");
        self.images.server.stop();
        let resumed = match self.frozen {
            Some(frozen) => {
                let resumed = leaving.resume();
                self.account.frozen_ms = Some(milliseconds(frozen.elapsed()));
                resumed
            }
            None => {
                drop(leaving);
                Ok(())
            }
        };
        let (journal, id) = (self.source.journal, self.plan.id);
        if journal.record(id, Role::Source).is_ok_and(|record| record.state != State::Preparing) {
            journal.note_step(id, Role::Source, State::Resuming, Some(&reason));
        }
        if let Some(mut talk) = talk {
            talk.channel().refuse(reason.clone(), Deadline::after(LAST_WORD));
            self.account.control += talk.bytes_sent();
        }
        if let Err(error) = resumed {
            let stopped =
                format!("{reason}; and then it could not be made to run on: {}", chain(error.as_ref()));
            tracing::error!(reason = stopped, "the application stands still");
            return (Outcome::Stopped, Some(stopped));
        }
        journal.note_step(id, Role::Source, State::Aborted, Some(&reason));
        self.undo_hooks(&reason);
        (Outcome::Stayed, Some(reason))
    }

    fn hook(&mut self, phase: Phase, stage: Stage) -> Result<(), Error> {
        let facts = facts(self.plan, None);
        let hooks = self.source.hooks;
        self.phases.run(phase, self.plan.options.limits.frozen, |_| {
            hooks.run(stage, &facts).map_err(|source| Error::Hook { stage, source })
        })
    }

    fn undo_hooks(&mut self, reason: &str) {
        if !self.hooked {
            return;
        }
        if let Err(error) = self.source.hooks.run(Stage::Aborted, &facts(self.plan, Some(reason))) {
            self.account.warnings.push(format!("an aborted hook failed: {}", chain(error.as_ref())));
        }
    }

    fn report(self, outcome: Outcome, reason: Option<String>) -> Report {
        let (plan, meter, account) = (self.plan, self.images.meter, self.account);
        let bytes = Bytes {
            raw: meter.raw(),
            zero: meter.zero(),
            memory: meter.memory(),
            wire: account.control + self.images.server.bytes_sent(),
            files: account.files.bytes,
        };
        Report {
            id: plan.id,
            container: plan.wanted.container.clone(),
            peer: plan.peer.clone(),
            outcome,
            reason,
            warnings: account.warnings,
            strategy: plan.options.strategy,
            compression: plan.options.compression,
            chunks: self.images.chooser.used(),
            streams: account.streams,
            file_rounds: account.file_rounds,
            files: account.files.entries,
            bytes,
            source: self.phases.took(),
            destination: account.destination,
            frozen_ms: account.frozen_ms,
            total_ms: self.phases.total(),
        }
    }
}

impl Account {
    fn count(&mut self, files: Files) {
        self.file_rounds += 1;
        self.files.entries += files.entries;
        self.files.bytes += files.bytes;
    }
}

/// What has moved must end: tries again, as a restarted daemon would.
fn end_again(
    source: &Source<'_>,
    id: MigrationId,
    mut leaving: Option<Box<dyn Leaving>>,
    mut error: Error,
) -> Result<(), Error> {
    for pause in END_AGAIN {
        tracing::error!(migration = %id, reason = chain(&error), "the application that has moved cannot be ended yet");
        thread::sleep(pause);
        let record = source.journal.record(id, Role::Source)?;
        let found = leaving.take().map_or_else(|| source.origin.found(&record), Ok);
        match found.and_then(Leaving::end) {
            Ok(()) => return Ok(()),
            Err(next) => error = Error::end("end the application that has moved")(next),
        }
    }
    Err(error)
}

/// What hooks on the source are told.
fn facts(plan: &Plan, reason: Option<&str>) -> Value {
    let record = Record::new(plan.id, Role::Source, &plan.peer, plan.wanted.clone(), plan.facts.clone());
    crate::hooks::facts(&record, reason)
}

fn send_files(
    talk: &mut Talk,
    leaving: &mut dyn Leaving,
    frozen: bool,
    deadline: Deadline,
) -> Result<Files, Error> {
    talk.say(&Message::Files { frozen }, &[], deadline)?;
    let mut out = StreamOut::new(talk, deadline);
    let packed = leaving.pack_files(&mut out);
    out.finish(packed.map_err(Error::end("pack the application's files")))
}

fn hear_files(talk: &mut Talk, deadline: Deadline) -> Result<(), Error> {
    talk.patiently(|talk| {
        talk.expect("files-done", deadline, |message| {
            matches!(message, Message::FilesDone { .. }).then_some(())
        })
    })
}

/// Makes one data connection.
fn open_data(
    source: &Source<'_>,
    plan: &Plan,
    token: String,
    lane: u32,
    deadline: Deadline,
) -> Result<Channel, Error> {
    let connection = source.dialer.dial().map_err(Error::Dial)?;
    let mut channel = Channel::open(connection, plan.id, lane);
    channel.send(&hello(Purpose::Data { token }), &[], deadline)?;
    match channel.receive(deadline)?.message {
        Message::Welcome { .. } => Ok(channel),
        Message::Refused { reason } => Err(Error::Refused(reason)),
        other => Err(crate::wire::WireError::Unexpected { got: other.kind(), expected: "welcome" }.into()),
    }
}
