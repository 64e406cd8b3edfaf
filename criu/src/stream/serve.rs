//! A restore's images, as CRIU asks for them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use super::{request, ImageSource};

/// What a pipe takes without anybody reading.
const AT_ONCE: usize = 64 * 1024;
const STEP: usize = 1 << 20;

/// Gives the CRIU that connects to `listener` what it asks for, until it asks no more.
pub(crate) fn serve(listener: &UnixListener, source: &Arc<dyn ImageSource>) -> io::Result<()> {
    let (mut socket, _) = listener.accept()?;
    while let Some(name) = request::read_name(&mut socket)? {
        let image = source.open(&name);
        request::answer(&mut socket, image.is_some())?;
        let Some(image) = image else { continue };
        give(&socket, &name, image)?;
    }
    Ok(())
}

/// CRIU asks for many small images one after the other, and reads several large ones at a time.
fn give(socket: &UnixStream, name: &str, mut image: Box<dyn Read + Send>) -> io::Result<()> {
    let mut pipe = File::from(request::read_pipe(socket)?);
    let mut first = Vec::with_capacity(AT_ONCE);
    image.by_ref().take(AT_ONCE as u64).read_to_end(&mut first)?;
    if first.len() < AT_ONCE {
        return unless_closed(pipe.write_all(&first));
    }
    // EPERM where the system allows a user no more: it does with less.
    let _ = rustix::pipe::fcntl_setpipe_size(&pipe, STEP);
    let name = name.to_owned();
    std::thread::Builder::new().name("image".into()).spawn(move || {
        let copied = pipe.write_all(&first).and_then(|()| copy(image.as_mut(), &mut pipe));
        if let Err(e) = unless_closed(copied) {
            // The pipe ends early, which CRIU notices.
            tracing::warn!(name, error = %e, "an image could not be given to CRIU");
        }
    })?;
    Ok(())
}

fn copy(image: &mut dyn Read, pipe: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; STEP];
    loop {
        match image.read(&mut buffer)? {
            0 => return Ok(()),
            count => pipe.write_all(&buffer[..count])?,
        }
    }
}

/// CRIU need not read an image to its end.
fn unless_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use rustix::pipe::pipe;

    use super::request::tests::{ask, give as give_pipe};
    use super::*;

    #[derive(Debug)]
    struct Two;

    impl ImageSource for Two {
        fn open(&self, name: &str) -> Option<Box<dyn Read + Send>> {
            match name {
                "small.img" => Some(Box::new(&b"small"[..])),
                "large.img" => Some(Box::new(io::repeat(7).take(5 << 20))),
                _ => None,
            }
        }

        fn names(&self) -> Vec<String> {
            vec!["small.img".into()]
        }
    }

    #[test]
    fn what_exists_is_given_and_large_ones_block_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let source: Arc<dyn ImageSource> = Arc::new(Two);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut socket = UnixStream::connect(&path).unwrap();
                let mut open = |name: &str| {
                    ask(&mut socket, name);
                    let mut answer = [0; 6];
                    socket.read_exact(&mut answer).unwrap();
                    if answer != [2, 0, 0, 0, 8, 1] {
                        return None;
                    }
                    let (read, write) = pipe().unwrap();
                    give_pipe(&socket, write);
                    Some(File::from(read))
                };
                assert!(open("none.img").is_none());
                let mut large = open("large.img").unwrap();
                let mut text = String::new();
                open("small.img").unwrap().read_to_string(&mut text).unwrap();
                assert_eq!(text, "small");
                let mut all = Vec::new();
                large.read_to_end(&mut all).unwrap();
                assert_eq!(all.len(), 5 << 20);
            });
            serve(&listener, &source).unwrap();
        });
    }
}
