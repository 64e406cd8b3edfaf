//! Halting the application: signals, pause and resume, standby.

use fastmig_control::{Request, Signal};

use crate::{trace, ApplicationState, Container, Error};

impl Container {
    /// Sends a signal to the container's PID 1, which hands it to the application; with `all`, to everything in it.
    ///
    /// # Errors
    /// When runc fails; [`crate::Kind::NotFound`] when the container has ended.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), Error> {
        let record = self.directory.load(&self.key)?;
        if signal == libc::SIGSTOP && self.is_warm() && !all {
            return self.signal_application(signal);
        }
        let number = signal.to_string();
        let mut arguments = vec!["kill"];
        if all {
            arguments.push("--all");
        }
        arguments.extend([self.key.id(), &number]);
        self.runc(&record).run(&arguments)?;
        if signal == libc::SIGKILL && self.is_warm() {
            // A frozen process takes its SIGKILL only when thawed; sent before, nothing of it runs until PID 1 has ended.
            let _ = self.application_cgroup().map(|cgroup| {
                cgroup.signal_all(nix::sys::signal::SIGKILL);
                cgroup.thaw()
            });
        }
        Ok(())
    }

    /// Nobody can forward a signal that cannot be caught: the init sends it on demand.
    fn signal_application(&self, signal: i32) -> Result<(), Error> {
        let Ok(signal) = Signal::new(signal) else {
            return Err(Error::BadName { what: "signal", value: signal.to_string() });
        };
        self.init()?.ask(&Request::Signal { signal }).map(|_| ())
    }

    /// Freezes the application; exec sessions and the init go on.
    ///
    /// # Errors
    /// When it does not freeze in time, or is not running.
    pub fn pause(&self) -> Result<(), Error> {
        let mut operation = self.begin()?;
        if operation.record.paused {
            return Err(Error::Paused { id: self.key.id().into(), action: "pause" });
        }
        if self.is_warm() {
            match self.application()? {
                ApplicationState::Running => self.freeze()?,
                ApplicationState::Standby => {}
                state => return Err(self.wrong_state("pause", state)),
            }
        } else {
            self.runc(&operation.record).run(&["pause", self.key.id()])?;
        }
        operation.record.paused = true;
        operation.save()
    }

    /// Thaws the application.
    ///
    /// # Errors
    /// When it is not paused, or the freezer fails.
    pub fn resume(&self) -> Result<(), Error> {
        let mut operation = self.begin()?;
        if !operation.record.paused {
            return Err(Error::NotPaused { id: self.key.id().into() });
        }
        if self.is_warm() {
            let cgroup = self.application_cgroup()?;
            cgroup.thaw().map_err(|e| Error::io("thaw", cgroup.directory(), e))?;
        } else {
            self.runc(&operation.record).run(&["resume", self.key.id()])?;
        }
        operation.record.paused = false;
        operation.save()
    }

    /// Takes the application out of the container; the container stays up.
    ///
    /// # Errors
    /// When there is no application, or it cannot be killed.
    pub fn standby(&self) -> Result<(), Error> {
        trace::operation(&self.config, &self.key, "standby", || {
            let _operation = self.begin_warm("put into standby")?;
            if self.application()? == ApplicationState::Standby {
                self.decide_to_stay();
                return Ok(());
            }
            self.end_application()
        })
    }

    /// Where an end waits for a decision, nothing is to come up.
    pub(crate) fn decide_to_stay(&self) {
        // Refused where nothing waits.
        let _ = self.init().and_then(|init| init.ask(&Request::Stay));
    }

    /// Kills the application and waits until the init says that the container is in standby.
    pub(crate) fn end_application(&self) -> Result<(), Error> {
        self.init()?.ask(&Request::Stop { signal: None })?;
        let cgroup = self.application_cgroup()?;
        cgroup
            .kill_all(self.config.limits.freeze())
            .map_err(|e| Error::io("kill the application in", cgroup.directory(), e))?;
        let deadline = std::time::Instant::now() + self.config.limits.init();
        while self.application()? != ApplicationState::Standby {
            if std::time::Instant::now() > deadline {
                return Err(Error::Init {
                    id: self.key.id().into(),
                    source: std::io::ErrorKind::TimedOut.into(),
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }
}
