//! Images that travel while CRIU makes the next ones: it closes those of a process when it has dumped it, and does not open them
//! again.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use fastmig_criu::ImageSink;
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::spool::{Given, Spool};

/// How the names of one process's images begin. Those of all processes are written until the end, or mended after it.
const OF_A_PROCESS: [&str; 6] = ["core-", "fdinfo-", "ids-", "mm-", "pagemap-", "pages-"];

/// Runs `dump`, and passes on meanwhile what it has ended. What the kernel does not tell of is left for afterwards.
pub(super) fn while_dumping<T: Send>(
    spool: &Spool,
    sink: &mut dyn ImageSink,
    dump: impl FnOnce() -> T + Send,
) -> (T, io::Result<Given>) {
    let Ok((watch, over)) = watch(spool) else { return (dump(), Ok(Given::default())) };
    let done = thread::scope(|scope| {
        // Its end hangs up.
        let (ours, theirs) = over;
        let dumping = scope.spawn(move || {
            let _theirs = theirs;
            dump()
        });
        let given = give(spool, sink, &watch, &ours);
        let dumped = dumping.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (dumped, given)
    });
    forget(watch);
    done
}

/// The kernel waits for a grace period, some 15 ms, when a watch is closed: nobody else does.
fn forget(watch: Inotify) {
    if let Err(error) = thread::Builder::new().spawn(move || drop(watch)) {
        tracing::debug!(%error, "a watch was closed within the freeze");
    }
}

fn watch(spool: &Spool) -> io::Result<(Inotify, (UnixStream, UnixStream))> {
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    watch.add_watch(spool.path(), AddWatchFlags::IN_CLOSE_WRITE)?;
    Ok((watch, UnixStream::pair()?))
}

/// Until the other end of `over` is gone.
fn give(spool: &Spool, sink: &mut dyn ImageSink, watch: &Inotify, over: &UnixStream) -> io::Result<Given> {
    let mut given = Given::default();
    loop {
        let mut waiting =
            [PollFd::new(watch.as_fd(), PollFlags::POLLIN), PollFd::new(over.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        if waiting[1].any().unwrap_or(true) {
            return Ok(given);
        }
        for name in ended(watch)? {
            // Once more is no image that we know: what the sink has would not be all.
            if !given.add(&name) {
                return Err(io::Error::other(format!("CRIU wrote {name} twice")));
            }
            spool.give_one(&name, sink)?;
        }
    }
}

/// The images of a process that were closed since.
fn ended(watch: &Inotify) -> io::Result<Vec<String>> {
    let events = match watch.read_events() {
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Vec::new()),
        events => events?,
    };
    let names = events.into_iter().filter_map(|event| event.name?.into_string().ok());
    Ok(names.filter(|name| OF_A_PROCESS.iter().any(|begins| name.starts_with(begins))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Names(Vec<String>);

    impl ImageSink for Names {
        fn image(&mut self, name: &str, _content: Vec<u8>) -> io::Result<()> {
            self.0.push(name.to_owned());
            Ok(())
        }

        fn part(&mut self, _name: &str, _content: Vec<u8>, _last: bool) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Looks until the watch has come to a file that `sink` does not get.
    fn settle() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }

    #[test]
    fn images_of_a_process_go_when_they_are_closed_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, mut sink) = (Spool::at(directory.path()), Names::default());
        let write = |name: &str| std::fs::write(directory.path().join(name), name).unwrap();
        let (dumped, given) = while_dumping(&spool, &mut sink, || {
            ["core-7.img", "files.img", "mm-7.img"].into_iter().for_each(write);
            let open = std::fs::File::create(directory.path().join("core-8.img")).unwrap();
            settle();
            drop(open);
            3
        });
        let given = given.unwrap();
        assert_eq!(dumped, 3);
        assert!(given.has("core-7.img") && given.has("mm-7.img") && !given.has("files.img"));
        spool.give(&given, &mut sink).unwrap();
        assert_eq!(sink.0[..2], ["core-7.img", "mm-7.img"]);
        sink.0.sort();
        assert_eq!(sink.0, ["core-7.img", "core-8.img", "files.img", "mm-7.img"], "each once");
    }

    #[test]
    fn an_image_that_is_written_again_is_not_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::at(directory.path());
        let ((), given) = while_dumping(&spool, &mut Names::default(), || {
            for _ in 0..2 {
                std::fs::write(directory.path().join("core-7.img"), "x").unwrap();
                settle();
            }
        });
        assert!(given.unwrap_err().to_string().contains("core-7.img twice"));
    }
}
