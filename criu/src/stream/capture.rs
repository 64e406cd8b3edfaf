//! A dump's images, as CRIU writes them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{poll, PollFd, PollFlags};
use rustix::fs::{fcntl_setfl, OFlags};
use rustix::pipe::{fcntl_setpipe_size, splice, SpliceFlags};

use super::pagemap::{self, PageImage};
use super::{request, ImageSink};
use crate::timers;

/// What CRIU may be ahead of us by. As root, or as far as the system allows; a pipe of the usual size does too.
const PIPE: usize = 1 << 20;
/// An image that grows beyond is passed on in parts of this size.
const PART: usize = 1 << 20;
/// Images that are looked into must be whole; these describe millions of files or pages.
const LARGEST_WHOLE: usize = 256 << 20;
const DISCARD: usize = 64 << 20;

/// Takes all images of one dump from the CRIU that connects to `listener`, and hands them on. Those of the memory of
/// processes are left out, and described instead.
pub(crate) fn capture(listener: &UnixListener, sink: &mut dyn ImageSink) -> io::Result<Vec<PageImage>> {
    let (socket, _) = listener.accept()?;
    let nowhere = File::options().write(true).open("/dev/null")?;
    let (open, latest) = (Vec::new(), String::new());
    let capture = Capture { socket, open, latest, nowhere, left_out: Vec::new(), discarded: 0, sink };
    capture.run()
}

struct Capture<'a> {
    socket: UnixStream,
    open: Vec<Image>,
    /// The name of the image that was opened last. It may have ended meanwhile: CRIU does not wait for us.
    latest: String,
    nowhere: File,
    left_out: Vec<PageImage>,
    discarded: u64,
    sink: &'a mut dyn ImageSink,
}

/// An image that CRIU is writing.
struct Image {
    name: String,
    pipe: File,
    kind: Kind,
    content: Vec<u8>,
    /// Whether parts of it have been passed on.
    begun: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Passed on as it comes.
    Plain,
    /// Looked into first: timers among the files, addresses of pages.
    Whole,
    /// The memory of a process.
    LeftOut,
}

impl Capture<'_> {
    fn run(mut self) -> io::Result<Vec<PageImage>> {
        let mut asks = true;
        while asks || !self.open.is_empty() {
            let (asked, ready) = self.wait(asks)?;
            // From the last to the first: those that end are taken out.
            for index in ready.into_iter().rev() {
                if self.read(index)? {
                    self.finish(index)?;
                }
            }
            if asked {
                asks = self.accept()?;
            }
        }
        let described: u64 = self.left_out.iter().map(PageImage::size).sum();
        if described != self.discarded {
            let what = format!("{described} bytes of memory described, {} written", self.discarded);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(self.left_out)
    }

    /// Until CRIU asks for something or writes: whether it asks, and which images it writes or has ended.
    fn wait(&self, asks: bool) -> io::Result<(bool, Vec<usize>)> {
        let mut watched: Vec<PollFd<'_>> =
            self.open.iter().map(|image| PollFd::new(&image.pipe, PollFlags::IN)).collect();
        if asks {
            watched.push(PollFd::new(&self.socket, PollFlags::IN));
        }
        rustix::io::retry_on_intr(|| poll(&mut watched, None))?;
        let active = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let ready = (0..self.open.len()).filter(|index| active(&watched[*index])).collect();
        Ok((asks && watched.last().is_some_and(active), ready))
    }

    /// Takes a new image; whether there was one.
    fn accept(&mut self) -> io::Result<bool> {
        let Some(name) = request::read_name(&mut self.socket)? else { return Ok(false) };
        let pipe = request::read_pipe(&self.socket)?;
        self.begin(name, pipe)?;
        Ok(true)
    }

    fn begin(&mut self, name: String, pipe: OwnedFd) -> io::Result<()> {
        fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        // EPERM where the system allows a user no more: it does with less.
        let _ = fcntl_setpipe_size(&pipe, PIPE);
        let kind = self.kind_of(&name);
        self.latest.clone_from(&name);
        self.open.push(Image { name, pipe: pipe.into(), kind, content: Vec::new(), begun: false });
        Ok(())
    }

    /// CRIU opens an image of pages right after the one that describes it.
    fn kind_of(&self, name: &str) -> Kind {
        if name.starts_with("pages-") && pagemap::process_of(&self.latest).is_some() {
            return Kind::LeftOut;
        }
        if name == timers::FILES || pagemap::process_of(name).is_some() {
            return Kind::Whole;
        }
        Kind::Plain
    }

    /// Reads what there is of one image; whether it has ended.
    fn read(&mut self, index: usize) -> io::Result<bool> {
        let image = &mut self.open[index];
        loop {
            if image.kind == Kind::LeftOut {
                match discard(image.pipe.as_fd(), &self.nowhere) {
                    Ok(0) => return Ok(true),
                    Ok(count) => self.discarded += count,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(e) => return Err(e),
                }
                continue;
            }
            let begun = image.content.len();
            let room = if image.kind == Kind::Whole { LARGEST_WHOLE } else { PART } - begun;
            let step = room.min(PART);
            image.content.resize(begun + step, 0);
            let count = image.pipe.read(&mut image.content[begun..]);
            image.content.truncate(begun + count.as_ref().map_or(0, |count| *count));
            match count {
                Ok(0) if step > 0 => return Ok(true),
                Ok(0) => return Err(too_large(&image.name)),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
            if image.kind == Kind::Plain && image.content.len() >= PART {
                image.begun = true;
                self.sink.part(&image.name, std::mem::take(&mut image.content), false)?;
            }
        }
    }

    fn finish(&mut self, index: usize) -> io::Result<()> {
        let image = self.open.remove(index);
        match image.kind {
            Kind::LeftOut => Ok(()),
            Kind::Plain if image.begun => self.sink.part(&image.name, image.content, true),
            Kind::Plain => self.sink.image(&image.name, image.content),
            Kind::Whole => self.finish_whole(image),
        }
    }

    fn finish_whole(&mut self, mut image: Image) -> io::Result<()> {
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, format!("CRIU wrote no valid {}", image.name));
        match pagemap::process_of(&image.name) {
            Some(pid) => self.left_out.push(pagemap::parse(pid, &image.content).ok_or_else(damaged)?),
            None => image.content = timers::mended(&image.content).ok_or_else(damaged)?,
        }
        self.sink.image(&image.name, image.content)
    }
}

/// Throws references to pages away; nothing is copied.
fn discard(pipe: impl AsFd, nowhere: &File) -> io::Result<u64> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(splice(pipe, None, nowhere, None, DISCARD, flags)? as u64)
}

fn too_large(name: &str) -> io::Error {
    let what = format!("{name} is larger than {} MiB", LARGEST_WHOLE >> 20);
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::pipe::pipe;

    use super::request::tests::{ask, give};
    use super::*;

    #[derive(Default)]
    struct Kept(Vec<(String, usize, bool)>);

    impl ImageSink for Kept {
        fn image(&mut self, name: &str, content: Vec<u8>) -> io::Result<()> {
            self.0.push((name.into(), content.len(), true));
            Ok(())
        }

        fn part(&mut self, name: &str, content: Vec<u8>, last: bool) -> io::Result<()> {
            self.0.push((name.into(), content.len(), last));
            Ok(())
        }
    }

    /// One page of process 7, at address 0x1000, in image 3.
    fn pagemap() -> Vec<u8> {
        let mut image = vec![0; 8];
        for message in [&[8, 3][..], &[8, 0x80, 0x20, 16, 1, 32, 4]] {
            image.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
            image.extend(message);
        }
        image
    }

    fn dump(images: &[(&str, Vec<u8>)]) -> (io::Result<Vec<PageImage>>, Kept) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut kept = Kept::default();
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut socket = UnixStream::connect(&path).unwrap();
                let mut open = Vec::new();
                for (name, _) in images {
                    let (read, write) = pipe().unwrap();
                    ask(&mut socket, name);
                    give(&socket, read);
                    open.push(File::from(write));
                }
                for (pipe, (_, content)) in open.iter_mut().zip(images).rev() {
                    pipe.write_all(content).unwrap();
                }
            });
            capture(&listener, &mut kept)
        });
        (result, kept)
    }

    #[test]
    fn memory_is_left_out_and_described() {
        let big = vec![1; 3 * PART / 2];
        let images = [
            ("pagemap-7.img", pagemap()),
            ("pages-3.img", vec![5; 4096]),
            ("ghost-file-1.img", big),
            ("core-7.img", vec![2; 10]),
        ];
        let (left_out, mut kept) = dump(&images);
        let left_out = left_out.unwrap();
        assert_eq!(left_out.len(), 1);
        assert_eq!((left_out[0].pid, left_out[0].name.as_str()), (7, "pages-3.img"));
        kept.0.sort();
        let ghost: usize = kept.0.iter().filter(|part| part.0.starts_with("ghost")).map(|part| part.1).sum();
        assert_eq!(ghost, 3 * PART / 2);
        let names: Vec<&str> = kept.0.iter().filter(|part| part.2).map(|part| part.0.as_str()).collect();
        assert_eq!(names, ["core-7.img", "ghost-file-1.img", "pagemap-7.img"]);
    }

    /// CRIU opens, writes and closes without waiting for us.
    #[test]
    fn memory_is_left_out_also_when_its_description_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut socket = UnixStream::connect(&path).unwrap();
        for (name, content) in [("pagemap-7.img", pagemap()), ("pages-3.img", vec![5; 4096])] {
            let (read, write) = pipe().unwrap();
            ask(&mut socket, name);
            give(&socket, read);
            File::from(write).write_all(&content).unwrap();
        }
        drop(socket);
        let left_out = capture(&listener, &mut Kept::default()).unwrap();
        assert_eq!(left_out.len(), 1);
    }

    #[test]
    fn shared_memory_travels() {
        let (left_out, kept) = dump(&[("pagemap-shmem-1.img", vec![0; 8]), ("pages-1.img", vec![5; 4096])]);
        assert!(left_out.unwrap().is_empty());
        assert!(kept.0.iter().any(|part| part.0 == "pages-1.img" && part.1 == 4096));
    }

    #[test]
    fn memory_that_is_not_all_described_is_refused() {
        let (left_out, _) = dump(&[("pagemap-7.img", pagemap()), ("pages-3.img", vec![5; 8192])]);
        assert!(left_out.is_err());
    }
}
