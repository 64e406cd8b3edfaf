//! The streams of a process, with pipes, FIFOs and terminals of the real kind.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fastmig_engine::StdioFds;
use nix::sys::stat::Mode;

use super::laid::make_pipe;
use super::*;

const LIMIT: Duration = Duration::from_secs(5);

fn owner() -> Owner<'static> {
    Owner { id: "c1", namespace: "default", uid: 0, gid: 0 }
}

fn fifo(directory: &tempfile::TempDir, name: &str) -> String {
    let path = directory.path().join(name);
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    path.to_str().unwrap().to_owned()
}

fn reader(path: &str) -> File {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

/// Reads a FIFO to its end. A program that another test starts has our descriptors for a moment, too.
fn read_all(mut fifo: File) -> String {
    let mut bytes = Vec::new();
    let deadline = std::time::Instant::now() + LIMIT;
    while let Err(e) = fifo.read_to_end(&mut bytes) {
        assert!(e.kind() == std::io::ErrorKind::WouldBlock && std::time::Instant::now() < deadline, "{e}");
        std::thread::sleep(Duration::from_millis(5));
    }
    String::from_utf8(bytes).unwrap()
}

fn write(fd: OwnedFd, text: &str) {
    File::from(fd).write_all(text.as_bytes()).unwrap();
}

async fn lay(stdio: &Stdio) -> (Laid, StdioFds) {
    Laid::new(stdio, &owner(), &Arc::default()).await.unwrap()
}

#[tokio::test]
async fn nothing_asked_for_is_nothing_given() {
    let (laid, fds) = lay(&Stdio::default()).await;
    assert!(fds.stdin.is_none() && fds.stdout.is_none() && fds.stderr.is_none());
    assert!(laid.connect().await.unwrap().drain(LIMIT).await);
}

#[tokio::test]
async fn output_reaches_a_reader_of_each_fifo() {
    let directory = tempfile::tempdir().unwrap();
    let (stdout, stderr) = (fifo(&directory, "out"), fifo(&directory, "err"));
    let stdio = Stdio { stdout: stdout.clone(), stderr: stderr.clone(), ..Stdio::default() };
    let (laid, fds) = lay(&stdio).await;
    let (stdout, stderr) = (reader(&stdout), reader(&stderr));
    write(fds.stdout.unwrap(), "out");
    write(fds.stderr.unwrap(), "err");
    assert!(laid.connect().await.unwrap().drain(LIMIT).await);
    assert_eq!((read_all(stdout), read_all(stderr)), ("out".to_owned(), "err".to_owned()));
}

#[tokio::test]
async fn a_reader_that_goes_away_and_comes_back_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = fifo(&directory, "out");
    let (laid, fds) = lay(&Stdio { stdout: path.clone(), ..Stdio::default() }).await;
    let mut io = laid.connect().await.unwrap();
    drop(reader(&path));
    let mut stdout = File::from(fds.stdout.unwrap());
    stdout.write_all(b"between ").unwrap();
    let again = reader(&path);
    stdout.write_all(b"and after").unwrap();
    drop(stdout);
    assert!(io.drain(LIMIT).await);
    assert_eq!(read_all(again), "between and after");
}

#[tokio::test]
async fn what_a_failed_start_said_is_not_copied() {
    let directory = tempfile::tempdir().unwrap();
    let path = fifo(&directory, "err");
    let (laid, fds) = lay(&Stdio { stderr: path.clone(), ..Stdio::default() }).await;
    let stderr = reader(&path);
    write(fds.stderr.unwrap(), "runc create failed");
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(laid);
    assert_eq!(read_all(stderr), "");
}

#[tokio::test]
async fn a_stream_that_somebody_holds_is_drained_until_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let (laid, fds) = lay(&Stdio { stdout: fifo(&directory, "out"), ..Stdio::default() }).await;
    let mut io = laid.connect().await.unwrap();
    assert!(!io.drain(Duration::from_millis(50)).await);
    drop(fds);
    assert!(io.drain(LIMIT).await);
}

#[tokio::test]
async fn a_file_is_made_and_appended_to_by_both_streams() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs/c1.log");
    let uri = format!("file://{}", path.display());
    for _ in 0..2 {
        let (laid, fds) = lay(&Stdio { stdout: uri.clone(), stderr: uri.clone(), ..Stdio::default() }).await;
        write(fds.stdout.unwrap(), "line\n");
        write(fds.stderr.unwrap(), "line\n");
        assert!(laid.connect().await.unwrap().drain(LIMIT).await);
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), "line\n".repeat(4));
}

#[tokio::test]
async fn input_ends_when_the_client_has_closed_it_and_said_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = fifo(&directory, "in");
    let (laid, fds) = lay(&Stdio { stdin: path.clone(), ..Stdio::default() }).await;
    let io = laid.connect().await.unwrap();
    let process = tokio::task::spawn_blocking(move || read_all(File::from(fds.stdin.unwrap())));
    File::options().write(true).open(&path).unwrap().write_all(b"one ").unwrap();
    File::options().write(true).open(&path).unwrap().write_all(b"two").unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!process.is_finished());
    io.handle().close_stdin();
    assert_eq!(tokio::time::timeout(LIMIT, process).await.unwrap().unwrap(), "one two");
}

/// A logger that says it is ready, and writes what it reads and was told to a file.
fn logger(directory: &tempfile::TempDir) -> (String, std::path::PathBuf) {
    let (program, log) = (directory.path().join("logger"), directory.path().join("log"));
    let script = "#!/bin/sh\necho ready >&5; exec 5>&-\n\
        { echo \"$CONTAINER_NAMESPACE/$CONTAINER_ID $2\"; cat <&3; cat <&4; } >\"$2\"\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (format!("binary-v2://{}?--log={}", program.display(), log.display()), log)
}

#[tokio::test]
async fn a_logger_reads_both_streams_to_their_end() {
    let directory = tempfile::tempdir().unwrap();
    let (uri, log) = logger(&directory);
    let (laid, fds) = lay(&Stdio { stdout: uri.clone(), stderr: uri, ..Stdio::default() }).await;
    let io = laid.connect().await.unwrap();
    write(fds.stdout.unwrap(), "out\n");
    write(fds.stderr.unwrap(), "err\n");
    io.close().await;
    let expected = format!("default/c1 {}\nout\nerr\n", log.display());
    assert_eq!(std::fs::read_to_string(&log).unwrap(), expected);
}

#[tokio::test]
async fn a_logger_that_fails_is_an_error() {
    let stdio = Stdio { stdout: "binary-v2:///bin/false".into(), ..Stdio::default() };
    assert!(Laid::new(&stdio, &owner(), &Arc::default()).await.is_err());
    let stdio = Stdio { stdout: "binary:///nonexistent".into(), ..Stdio::default() };
    assert!(Laid::new(&stdio, &owner(), &Arc::default()).await.is_err());
}

/// Does runc's part: makes a pty and sends its master.
fn send_terminal(socket: &Path) -> OwnedFd {
    use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags};
    use std::os::fd::AsRawFd;
    let pty = nix::pty::openpty(None, None).unwrap();
    let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let fds = [pty.master.as_raw_fd()];
    let name = [std::io::IoSlice::new(b"/dev/pts/0")];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(stream.as_raw_fd(), &name, &rights, MsgFlags::empty(), None).unwrap();
    pty.slave
}

/// A terminal in use, its slave, and the slave's path.
async fn terminal(stdio: &Stdio) -> (ProcessIo, File, std::path::PathBuf) {
    let (laid, fds) = lay(stdio).await;
    assert!(fds.stdout.is_none());
    let slave = send_terminal(laid.console_socket().unwrap());
    let path = nix::unistd::ttyname(&slave).unwrap();
    (laid.connect().await.unwrap(), File::from(slave), path)
}

async fn read_from(path: String, expected: &'static str) {
    let read = move || {
        let (mut client, mut seen) = (File::open(path).unwrap(), Vec::new());
        while !String::from_utf8_lossy(&seen).contains(expected) {
            let mut buffer = [0; 256];
            let length = client.read(&mut buffer).unwrap();
            assert!(length > 0, "the stream ended at {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..length]);
        }
    };
    tokio::time::timeout(LIMIT, tokio::task::spawn_blocking(read)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_takes_input_and_gives_output() {
    let directory = tempfile::tempdir().unwrap();
    let (stdin, stdout) = (fifo(&directory, "in"), fifo(&directory, "out"));
    let stdio = Stdio { stdin: stdin.clone(), stdout: stdout.clone(), terminal: true, ..Stdio::default() };
    let (io, mut slave, _) = terminal(&stdio).await;
    io.handle().resize(100, 30).unwrap();
    slave.write_all(b"prompt").unwrap();
    read_from(stdout, "prompt").await;
    File::options().write(true).open(&stdin).unwrap().write_all(b"typed\n").unwrap();
    let typed = tokio::task::spawn_blocking(move || {
        let mut line = [0; 6];
        slave.read_exact(&mut line).unwrap();
        line
    });
    assert_eq!(&tokio::time::timeout(LIMIT, typed).await.unwrap().unwrap(), b"typed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_hangs_up_and_comes_back_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (stdin, stdout) = (fifo(&directory, "in"), fifo(&directory, "out"));
    let stdio = Stdio { stdin: stdin.clone(), stdout: stdout.clone(), terminal: true, ..Stdio::default() };
    let (mut io, mut slave, path) = terminal(&stdio).await;
    slave.write_all(b"before").unwrap();
    read_from(stdout.clone(), "before").await;
    drop(slave);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut slave = File::options().read(true).write(true).open(&path).unwrap();
    slave.write_all(b"again").unwrap();
    read_from(stdout.clone(), "again").await;
    File::options().write(true).open(&stdin).unwrap().write_all(b"typed\n").unwrap();
    read_from(stdout, "typed").await; // the echo
    drop(slave);
    io.handle().ended();
    assert!(io.drain(LIMIT).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_the_input_of_a_terminal_hangs_it_up() {
    let directory = tempfile::tempdir().unwrap();
    let stdio = Stdio { stdin: fifo(&directory, "in"), terminal: true, ..Stdio::default() };
    let (mut io, mut slave, _) = terminal(&stdio).await;
    io.handle().close_stdin();
    let end = tokio::task::spawn_blocking(move || slave.read(&mut [0; 8]));
    // A read that the hang-up finds waiting ends, a later one fails.
    let end = tokio::time::timeout(LIMIT, end).await.unwrap().unwrap();
    assert!(matches!(&end, Ok(0)) || end.is_err_and(|e| e.raw_os_error() == Some(libc::EIO)));
    assert!(io.drain(LIMIT).await);
    io.handle().resize(80, 25).unwrap();
}

#[tokio::test]
async fn pipes_belong_to_whom_the_options_say() {
    use std::os::unix::fs::MetadataExt;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (read, write) = make_pipe(&Owner { uid: 1000, gid: 1001, ..owner() }).unwrap();
    drop(write);
    let metadata = File::from(read).metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1000, 1001));
}
