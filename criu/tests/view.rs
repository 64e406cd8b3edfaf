//! CRIU under our view of memory: a process tree is dumped without its memory and restored from what was filled beforehand.
//!
//! Needs a CRIU bundle, named in `FASTMIG_VIEW_BUNDLE`, root, and a mount namespace with a root of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "view/processes.rs"]
mod processes;
#[path = "view/sys.rs"]
mod sys;
#[path = "view/target.rs"]
mod target;

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use fastmig_criu::view::{
    images, AreaSpec, Content, DumpView, HiddenFile, HiddenMapping, Limits, Placed, RestoreView, SegmentSpec,
};
use fastmig_criu::{Bundle, Common, Detail, DumpOptions, Launch, Log, Notification, RestoreOptions};
use processes::{Mapping, Process, Tree};

const LIMIT: Duration = Duration::from_secs(60);

fn bundle() -> Option<Bundle> {
    let Some(directory) = std::env::var_os("FASTMIG_VIEW_BUNDLE") else {
        println!("skipped: FASTMIG_VIEW_BUNDLE names no bundle");
        return None;
    };
    let directory = Path::new(&directory);
    Some(Bundle::open(directory, directory).unwrap())
}

fn launch(bundle: &Bundle) -> Launch<'_> {
    Launch::new(bundle, LIMIT).with_capabilities(caps::read(None, caps::CapSet::Permitted).unwrap())
}

/// Stays in the test's directory.
fn log(directory: &Path, name: &str) -> Log {
    Log::new(Detail::Everything, directory.join(name), directory.join(name))
}

fn common() -> Common {
    Common { shell_job: true, ..Common::default() }
}

/// Dumps a tree without the memory that `hidden` and `files` name; it is left stopped.
fn dump(bundle: &Bundle, tree: &Tree, directory: &Path) {
    let mut view = DumpView::new().unwrap();
    let mut launch = launch(bundle).with_dump_view(&view).unwrap();
    let images = launch.pass_directory(File::open(directory.join("images")).unwrap().into());
    let session = launch.start(&directory.join("work"), &log(directory, "dump.log")).unwrap();
    let hidden: Vec<HiddenMapping> = mappings(tree)
        .map(|(process, mapping)| HiddenMapping { pid: process.pid, start: mapping.start, end: mapping.end })
        .collect();
    let smaps: Vec<(i32, Vec<u8>)> = tree.processes.iter().map(|p| (p.pid, p.smaps())).collect();
    let begin = Instant::now();
    view.hide(&hidden, &smaps).unwrap();
    let files: Vec<HiddenFile> = tree.files();
    view.hide_shared(&files).unwrap();
    let options = DumpOptions {
        pid: tree.root(),
        images,
        freezer: None,
        external: vec![],
        common: common(),
        ghost_limit: 1 << 20,
        freeze_timeout: 10,
        leave_stopped: true,
    };
    session.dump(&options).unwrap();
    println!("dump: {:?}", begin.elapsed());
    view.check().unwrap();
    assert_eq!(view.smaps_shown().unwrap(), tree.processes.len());
    for mapping in &hidden {
        let path = directory.join(format!("images/pagemap-{}.img", mapping.pid));
        assert!(images::omits(&fs::read(path).unwrap(), &[(mapping.start, mapping.end)]));
    }
    let size: u64 =
        fs::read_dir(directory.join("images")).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert!(size < 30 << 20, "the images have {size} bytes");
}

fn prepare_images(tree: &Tree, images: &Path) -> Vec<(i32, u64)> {
    let mut remainders = Vec::new();
    for process in &tree.processes {
        let path = images.join(format!("mm-{}.img", process.pid));
        let mm = fs::read(&path).unwrap();
        let keys: Vec<(u64, u64)> =
            process.hidden.iter().map(|mapping| (mapping.start, mapping.end)).collect();
        let keyed = images::key_mappings(&mm, &keys).unwrap();
        let largest = process.hidden.iter().max_by_key(|mapping| mapping.end - mapping.start).unwrap();
        remainders.push((process.pid, images::place_remainder(&keyed, largest.start).unwrap()));
        fs::write(&path, keyed).unwrap();
    }
    images::parent_directory(images).unwrap();
    remainders
}

fn mappings(tree: &Tree) -> impl Iterator<Item = (&Process, &Mapping)> {
    tree.processes.iter().flat_map(|process| process.hidden.iter().map(move |mapping| (process, mapping)))
}

fn area(process: &Process, mapping: &Mapping) -> AreaSpec {
    let (process, start, end) = (process.pid, mapping.start, mapping.end);
    AreaSpec { process, start, end, no_reserve: false, no_huge: false }
}

/// Fills what each process has of its own; answers the mappings.
fn fill(view: &RestoreView, tree: &Tree) -> Vec<Placed> {
    let mut placed = Vec::new();
    for (process, mapping) in mappings(tree) {
        let all = mapping.populated();
        let (filled, content) = match tree.inherited(process, mapping) {
            Some(parent) if mapping.own(parent) != all => {
                let (own, absent) = (mapping.own(parent), mapping.absent(parent));
                (own.clone(), Content::Inherited { own, absent })
            }
            _ => (all, Content::Own),
        };
        for span in &filled {
            view.write(process.pid, span.start, mapping.content(*span)).unwrap();
        }
        placed.push(Placed { process: process.pid, start: mapping.start, end: mapping.end, content });
    }
    placed
}

fn restore(bundle: &Bundle, tree: &Tree, directory: &Path, remainders: &[(i32, u64)], huge: bool) {
    let limits = Limits { bytes: 8 << 30, command: Duration::from_secs(20) };
    let mut view = RestoreView::new(limits).unwrap();
    let mut launch = launch(bundle).with_restore_view(&view).unwrap();
    let images = launch.pass_directory(File::open(directory.join("images")).unwrap().into());
    let session = launch.start(&directory.join("work"), &log(directory, "restore.log")).unwrap();
    let areas: Vec<AreaSpec> = mappings(tree).map(|(process, mapping)| area(process, mapping)).collect();
    view.lay_out(&areas).unwrap();
    let placed = fill(&view, tree);
    if !tree.segments.is_empty() {
        let specs: Vec<SegmentSpec> = tree.segments.iter().map(|s| s.spec.clone()).collect();
        view.make_segments(&specs).unwrap();
        for segment in &tree.segments {
            view.write_segment(segment.spec.id, 0, &segment.content).unwrap();
        }
    }
    if huge {
        assert!(view.collapse(Duration::from_secs(10)).unwrap());
    }
    view.align(remainders).unwrap();
    let pstree = fs::read(directory.join("images/pstree.img")).unwrap();
    let family = images::family(&pstree).unwrap();
    assert_eq!(family.len(), tree.processes.len());
    view.relate(&family).unwrap();
    view.arrange(&placed).unwrap();
    let options = RestoreOptions { images, lazy: false, inherited: vec![], label: None, common: common() };
    let mut result = None;
    let begin = Instant::now();
    let pid = session.restore(&options, &mut |stage| {
        if stage == Notification::PostRestore {
            result = Some(view.taken());
        }
        Ok(())
    });
    println!("restore: {:?}", begin.elapsed());
    assert_eq!(pid.unwrap(), tree.root());
    result.unwrap().unwrap();
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    for name in ["images", "work"] {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    directory
}

fn move_tree(children: usize, mib: usize, shared: bool, huge: bool) {
    let Some(bundle) = bundle() else { return };
    let directory = directory();
    let mut tree = Tree::start(children, mib, directory.path());
    tree.read(shared);
    let before = tree.looks();
    let pss = tree.pss();
    dump(&bundle, &tree, directory.path());
    tree.kill();
    let remainders = prepare_images(&tree, &directory.path().join("images"));
    restore(&bundle, &tree, directory.path(), &remainders, huge);
    tree.restored();
    let after = tree.looks();
    assert_eq!(before, after);
    let pss_after = tree.pss();
    println!("PSS: {pss} KiB, then {pss_after} KiB; huge pages {}", tree.huge());
    assert!(pss_after * 100 <= pss * 105 + 100 * 1024, "PSS {pss} KiB, then {pss_after} KiB");
    tree.compare();
}

fn a_process_finds_its_memory() {
    move_tree(0, 64, false, false);
}

fn a_process_finds_its_memory_in_huge_pages() {
    move_tree(0, 64, false, true);
}

fn children_share_what_they_shared() {
    move_tree(3, 64, false, false);
}

fn shared_memory_is_found_filled() {
    move_tree(2, 64, true, true);
}

type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("a_process_finds_its_memory", a_process_finds_its_memory),
    ("a_process_finds_its_memory_in_huge_pages", a_process_finds_its_memory_in_huge_pages),
    ("children_share_what_they_shared", children_share_what_they_shared),
    ("shared_memory_is_found_filled", shared_memory_is_found_filled),
    ("a_large_tree_of_huge_pages", || move_tree(6, 128, false, true)),
];

/// One after the other, for restored processes need their numbers.
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "target") {
        target::run(&arguments[1..]);
    }
    let wanted = arguments.iter().find(|word| !word.starts_with('-'));
    if bundle().is_none() {
        return;
    }
    for (name, case) in
        CASES.iter().filter(|(name, _)| wanted.is_none_or(|wanted| name.contains(wanted.as_str())))
    {
        println!("{name} ...");
        case();
        println!("{name}: ok");
    }
}
