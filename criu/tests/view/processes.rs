//! The processes under test, and what their memory looks like from outside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fastmig_criu::view::{HiddenFile, SegmentSpec, Span};
use nix::fcntl::{fcntl, FcntlArg, SealFlag};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

const PAGE: u64 = 4096;

pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    shared: u64,
    memfd: i32,
    pub(crate) hidden: Vec<Mapping>,
}

/// A mapping whose content is hidden from CRIU.
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    memory: Vec<u8>,
    /// Frame of each page, 0 for none.
    frames: Vec<u64>,
}

pub(crate) struct Segment {
    pub(crate) spec: SegmentSpec,
    pub(crate) content: Vec<u8>,
    file: HiddenFile,
}

pub(crate) struct Tree {
    child: Option<Child>,
    root: i32,
    pub(crate) processes: Vec<Process>,
    pub(crate) segments: Vec<Segment>,
    directory: PathBuf,
}

impl Tree {
    pub(crate) fn start(children: usize, mib: usize, directory: &Path) -> Self {
        let ready = directory.join("ready");
        fs::write(&ready, "").unwrap();
        let mut command = Command::new("setsid");
        command.arg(std::env::current_exe().unwrap()).arg("target");
        command.args([children.to_string(), mib.to_string()]).arg(&ready).current_dir("/");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let root = i32::try_from(child.id()).unwrap();
        let mut tree = Self {
            child: Some(child),
            root,
            processes: vec![],
            segments: vec![],
            directory: directory.to_owned(),
        };
        let end = Instant::now() + Duration::from_secs(20);
        while tree.processes.len() < super::target::processes(children) {
            assert!(Instant::now() < end, "the processes are not ready");
            std::thread::sleep(Duration::from_millis(20));
            tree.processes = fs::read_to_string(&ready).unwrap().lines().map(Process::parse).collect();
        }
        std::thread::sleep(Duration::from_millis(100));
        tree
    }

    pub(crate) fn root(&self) -> i32 {
        self.root
    }

    pub(crate) fn read(&mut self, shared: bool) {
        self.processes.iter_mut().for_each(Process::read);
        if !shared {
            return;
        }
        let root = self.processes.iter().find(|process| process.pid == self.root).unwrap();
        let mapping = mappings(root.pid).into_iter().find(|(start, ..)| *start == root.shared).unwrap();
        let path = format!("/proc/{}/map_files/{:x}-{:x}", root.pid, mapping.0, mapping.1);
        let memfd = format!("/proc/{}/fd/{}", root.pid, root.memfd);
        self.segments = vec![segment(&path, ""), segment(&memfd, "a name")];
    }

    /// The same mapping of a process's parent.
    pub(crate) fn inherited(&self, process: &Process, mapping: &Mapping) -> Option<&Mapping> {
        let parent = self.processes.iter().find(|parent| parent.pid == process.parent)?;
        parent.hidden.iter().find(|other| other.start == mapping.start)
    }

    pub(crate) fn files(&self) -> Vec<HiddenFile> {
        self.segments.iter().map(|segment| segment.file).collect()
    }

    pub(crate) fn kill(&mut self) {
        for process in &self.processes {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
        let end = Instant::now() + Duration::from_secs(10);
        while self.processes.iter().any(|process| Path::new(&format!("/proc/{}", process.pid)).exists()) {
            assert!(Instant::now() < end, "the processes do not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// It runs again, and is to be killed at the end.
    pub(crate) fn restored(&mut self) {
        for process in &self.processes {
            assert!(Path::new(&format!("/proc/{}", process.pid)).exists(), "{} is not there", process.pid);
        }
    }

    /// What each process's mappings and descriptors look like.
    pub(crate) fn looks(&self) -> BTreeMap<i32, (Vec<String>, Vec<String>)> {
        self.processes
            .iter()
            .map(|process| (process.pid, (process.mappings(), process.descriptors())))
            .collect()
    }

    pub(crate) fn pss(&self) -> u64 {
        self.sum("Pss:")
    }

    pub(crate) fn huge(&self) -> u64 {
        self.sum("AnonHugePages:")
    }

    fn sum(&self, name: &str) -> u64 {
        let of = |pid: i32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        self.processes.iter().map(|process| of(process.pid)).sum()
    }

    /// Whether everything is as it was read.
    pub(crate) fn compare(&self) {
        for process in &self.processes {
            for mapping in &process.hidden {
                let now = Mapping::read(process.pid, mapping.start, mapping.end);
                let pages = now.memory.chunks(4096).zip(mapping.memory.chunks(4096));
                let differing: Vec<usize> = pages
                    .enumerate()
                    .filter(|(_, (now, before))| now != before)
                    .map(|(page, _)| page)
                    .collect();
                assert!(
                    differing.is_empty(),
                    "the memory of {} differs at {:#x} in {} pages from {} on",
                    process.pid,
                    mapping.start,
                    differing.len(),
                    differing[0]
                );
                let populated =
                    |mapping: &Mapping| mapping.frames.iter().filter(|frame| **frame != 0).count();
                assert_eq!(populated(mapping), populated(&now));
            }
        }
        let root = self.processes.iter().find(|process| process.pid == self.root).unwrap();
        for segment in &self.segments {
            let path = if segment.spec.name.is_empty() {
                let (start, end) =
                    mappings(root.pid).into_iter().find(|(start, ..)| *start == root.shared).unwrap();
                format!("/proc/{}/map_files/{start:x}-{end:x}", root.pid)
            } else {
                format!("/proc/{}/fd/{}", root.pid, root.memfd)
            };
            assert!(fs::read(&path).unwrap() == segment.content, "shared memory differs");
            if !segment.spec.name.is_empty() {
                let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_WRITE;
                let found = fcntl(File::open(path).unwrap(), FcntlArg::F_GET_SEALS).unwrap();
                assert_eq!(SealFlag::from_bits_truncate(found), seals);
            }
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["dump.log", "restore.log"] {
                let text = fs::read_to_string(self.directory.join(log)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                println!("{log}:\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
            }
        }
        for process in &self.processes {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Process {
    fn parse(line: &str) -> Self {
        let words: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let [pid, parent, shared, memfd, hidden @ ..] = words.as_slice() else { panic!("{line}") };
        let number = |word: u64| i32::try_from(word).unwrap();
        let pid = number(*pid);
        let mappings = mappings(pid);
        // The kernel may have put it beside other memory.
        let mapping = |part: &[u64]| {
            let holds = |(start, end): &&(u64, u64)| *start <= part[0] && part[0] + part[1] <= *end;
            let (start, end) = *mappings.iter().find(holds).unwrap();
            Mapping { start, end, memory: vec![], frames: vec![] }
        };
        let mut hidden: Vec<Mapping> = hidden.chunks(2).map(mapping).collect();
        hidden.sort_by_key(|mapping| mapping.start);
        hidden.dedup_by_key(|mapping| mapping.start);
        Self { pid, parent: number(*parent), shared: *shared, memfd: number(*memfd), hidden }
    }

    fn read(&mut self) {
        for mapping in &mut self.hidden {
            *mapping = Mapping::read(self.pid, mapping.start, mapping.end);
        }
    }

    /// The smaps, reduced.
    pub(crate) fn smaps(&self) -> Vec<u8> {
        let text = fs::read_to_string(format!("/proc/{}/smaps", self.pid)).unwrap();
        let kept = text.split_inclusive('\n').filter(|line| {
            line.starts_with("VmFlags") || !line.starts_with(|first: char| first.is_ascii_uppercase())
        });
        kept.collect::<String>().into_bytes()
    }

    /// Mappings with their flags. Those of files are left out: CRIU maps them writable at first, which leaves a mark.
    fn mappings(&self) -> Vec<String> {
        let text = String::from_utf8(self.smaps()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let pairs = lines.chunks(2).map(|pair| {
            let words: Vec<&str> = pair[0].split_whitespace().collect();
            // Inodes are new, and memory that is shared without a file is a memfd now.
            let name = words[5..].join(" ").replace("/memfd:/dev/zero", "/dev/zero");
            // That a mapping is new, or has grown, marks it until somebody clears that.
            let flags = pair[1].replace(" sd", "");
            (name.clone(), format!("{} {} {name} {flags}", words[0], words[1]))
        });
        pairs
            .filter(|(name, _)| !name.starts_with('/') || name.starts_with("/dev/zero"))
            .map(|(_, line)| line)
            .collect()
    }

    fn descriptors(&self) -> Vec<String> {
        let directory = format!("/proc/{}/fd", self.pid);
        let mut all: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                format!("{:?} {:?}", entry.file_name(), fs::read_link(entry.path()).unwrap())
            })
            .collect();
        all.sort();
        all
    }
}

impl Mapping {
    fn read(pid: i32, start: u64, end: u64) -> Self {
        let length = usize::try_from(end - start).unwrap();
        let frames = frames(pid, start, length / 4096);
        let mut mapping = Self { start, end, memory: vec![0; length], frames };
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        for span in mapping.populated() {
            let (from, to) = mapping.range(span);
            memory.read_exact_at(&mut mapping.memory[from..to], span.start).unwrap();
        }
        mapping
    }

    fn range(&self, span: Span) -> (usize, usize) {
        let at = |address: u64| usize::try_from(address - self.start).unwrap();
        (at(span.start), at(span.end))
    }

    pub(crate) fn content(&self, span: Span) -> &[u8] {
        let (from, to) = self.range(span);
        &self.memory[from..to]
    }

    fn pages(&self, which: impl Fn(usize) -> bool) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for page in (0..self.frames.len()).filter(|page| which(*page)) {
            let start = self.start + page as u64 * PAGE;
            match spans.last_mut() {
                Some(last) if last.end == start => last.end += PAGE,
                _ => spans.push(Span { start, end: start + PAGE }),
            }
        }
        spans
    }

    pub(crate) fn populated(&self) -> Vec<Span> {
        self.pages(|page| self.frames[page] != 0)
    }

    pub(crate) fn own(&self, parent: &Self) -> Vec<Span> {
        self.pages(|page| self.frames[page] != 0 && self.frames[page] != parent.frame(page))
    }

    pub(crate) fn absent(&self, parent: &Self) -> Vec<Span> {
        self.pages(|page| self.frames[page] == 0 && parent.frame(page) != 0)
    }

    fn frame(&self, page: usize) -> u64 {
        self.frames.get(page).copied().unwrap_or(0)
    }
}

fn frames(pid: i32, start: u64, count: usize) -> Vec<u64> {
    let pages = File::open(format!("/proc/{pid}/pagemap")).unwrap();
    loop {
        let mut entries = vec![0; count * 8];
        pages.read_exact_at(&mut entries, start / PAGE * 8).unwrap();
        let entries: Vec<u64> =
            entries.chunks_exact(8).map(|entry| u64::from_le_bytes(entry.try_into().unwrap())).collect();
        // A page that the kernel is just moving elsewhere looks like one that is swapped out.
        let moving = entries.iter().filter(|entry| **entry >> 62 == 1).count();
        if moving == 0 {
            return entries
                .iter()
                .map(|entry| if entry >> 63 == 1 { entry & ((1 << 55) - 1) } else { 0 })
                .collect();
        }
        println!("{moving} pages are being moved");
    }
}

fn mappings(pid: i32) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let bounds = text.lines().map(|line| line.split_once(' ').unwrap().0.split_once('-').unwrap());
    bounds.map(|(start, end)| (number(start), number(end))).collect()
}

fn segment(path: &str, name: &str) -> Segment {
    let status = fs::metadata(path).unwrap();
    let content = fs::read(path).unwrap();
    let spec = SegmentSpec { id: status.ino(), size: content.len() as u64, name: name.into() };
    Segment { spec, content, file: HiddenFile { device: status.dev(), inode: status.ino() } }
}
