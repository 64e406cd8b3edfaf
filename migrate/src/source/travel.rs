//! Everything up to a destination that holds the restored application.

use std::sync::mpsc;
use std::thread::Scope;
use std::time::Instant;

use serde_json::Value;

use super::run::{Departure, Welcome};
use super::serve::Line;
use crate::ends::{Files, Leaving};
use crate::error::{chain, Error};
use crate::files::StreamOut;
use crate::hooks::Stage;
use crate::images::Pusher;
use crate::journal::Role;
use crate::phase::Phase;
use crate::progress::Event;
use crate::state::State;
use crate::talk::Talk;
use crate::transport::Deadline;
use crate::wire::Message;

impl<'a> Departure<'a> {
    /// Everything up to a destination that holds the restored application.
    pub(super) fn travel<'scope>(
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
        self.rounds(talk, leaving)?;
        self.freeze(talk, leaving)?;
        self.last_round(talk, leaving)?;
        self.let_fetch(scope);
        let last_files = self.last_files(talk, leaving)?;
        let dumped = self.dump(talk, leaving)?;
        self.hook(Phase::PostCheckpoint, Stage::PostCheckpoint)?;
        self.restore(talk, leaving, dumped, last_files)?;
        self.verify(talk, leaving)
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
        })?;
        let chosen =
            leaving.choose(self.plan.options.strategy).map_err(Error::end("move memory as asked"))?;
        let (strategy, why) = (chosen.strategy, chosen.why.clone());
        self.source.progress.event(Event::Strategy { strategy, why });
        (self.account.strategy, self.account.why) = (chosen.strategy, chosen.why);
        Ok(())
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
        let ready = Message::Ready { strategy: account.strategy, verify: plan.options.verify };
        self.phases.run(Phase::Ready, plan.options.limits.ready, |deadline| {
            talk.say(&ready, &[], deadline)?;
            let (made, connections) = mpsc::channel();
            let streams = plan.options.streams.max(1);
            for lane in 1..=streams {
                let made = made.clone();
                let line = Line { dialer: source.dialer, id: plan.id, token: token.to_owned(), lane };
                scope.spawn(move || {
                    match line.open(deadline) {
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
            leaving.ready(account.strategy).map_err(Error::end("start the dump"))?;
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
            let memory = images.server.show(&memory);
            images.meter.expect(memory.iter().map(|(_, size)| size).sum());
            talk.say(&Message::Dumped { dumped, memory }, &[], deadline)?;
            if last_files {
                hear_files(talk, deadline)?;
            }
            talk.expect("held", deadline, |message| matches!(message, Message::Held).then_some(()))
        })
    }
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
