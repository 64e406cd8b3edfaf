//! Areas in a CRIU that waits: laid out again and again, filled, emptied, and what happens when CRIU ends.
//!
//! Needs a CRIU bundle, named in `FASTMIG_VIEW_BUNDLE`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::time::Duration;

use fastmig_criu::view::{AreaSpec, Content, Limits, Placed, RestoreView, SegmentSpec, Span, ViewError};
use fastmig_criu::{Bundle, Detail, Launch, Log, Session};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(20);

struct Waiting {
    view: RestoreView,
    session: Session,
    _directory: tempfile::TempDir,
}

/// A CRIU that waits for its request, if there is one to be had.
fn waiting() -> Option<Waiting> {
    waiting_within(LIMIT)
}

fn waiting_within(command: Duration) -> Option<Waiting> {
    let Some(directory) = std::env::var_os("FASTMIG_VIEW_BUNDLE") else {
        println!("skipped: FASTMIG_VIEW_BUNDLE names no bundle");
        return None;
    };
    let bundle = Bundle::open(Path::new(&directory), Path::new(&directory)).unwrap();
    let view = RestoreView::new(Limits { bytes: 1 << 30, command }).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::new(&bundle, LIMIT)
        .with_capabilities(caps::read(None, caps::CapSet::Permitted).unwrap())
        .with_restore_view(&view)
        .unwrap();
    let file = directory.path().join("log");
    let session = launch.start(directory.path(), &Log::new(Detail::Everything, file.clone(), file)).unwrap();
    Some(Waiting { view, session, _directory: directory })
}

fn area(process: i32, start: u64, end: u64) -> AreaSpec {
    AreaSpec { process, start: start * MIB, end: end * MIB, no_reserve: process % 2 == 0, no_huge: false }
}

/// The first bytes of the page at `mib`.
fn stamp(view: &RestoreView, process: i32, mib: u64) {
    view.write(process, mib * MIB, &mark(process, mib)).unwrap();
}

fn mark(process: i32, mib: u64) -> [u8; 16] {
    u128::from(mib << 8 | u64::from(process.unsigned_abs())).to_le_bytes()
}

fn found(view: &RestoreView, process: i32, mib: u64) -> [u8; 16] {
    let mut found = [0; 16];
    view.read(process, mib * MIB, &mut found).unwrap();
    found
}

#[test]
fn content_stays_where_areas_overlap() {
    let Some(Waiting { mut view, session: _session, .. }) = waiting() else { return };
    let first = [area(1, 10, 20), area(1, 20, 30), area(1, 40, 60), area(2, 10, 20), area(2, 30, 31)];
    view.lay_out(&first).unwrap();
    for process in [1, 2] {
        let held =
            |mib: &u64| first.iter().any(|a| a.process == process && (a.start..a.end).contains(&(mib * MIB)));
        (0..60).filter(held).for_each(|mib| stamp(&view, process, mib));
    }
    let layouts = [
        vec![area(1, 10, 20), area(1, 20, 30), area(1, 40, 60), area(2, 10, 20), area(2, 30, 31)], // the same
        vec![area(1, 12, 18), area(1, 20, 35), area(1, 42, 45), area(1, 45, 59), area(2, 8, 32)], // smaller, larger, split, merged
        vec![
            area(1, 13, 36),
            area(1, 43, 50),
            area(1, 52, 100),
            area(2, 9, 11),
            area(2, 14, 15),
            area(2, 16, 300),
        ],
        vec![area(1, 1, 200), area(2, 1, 200), area(3, 1, 2)],
        vec![area(2, 17, 18)],
        vec![],
    ];
    let mut alive: Vec<(i32, u64)> = [1, 2].into_iter().flat_map(|p| (0..60).map(move |m| (p, m))).collect();
    let mut before = first.to_vec();
    for layout in layouts {
        let holds = |areas: &[AreaSpec], process: i32, mib: u64| {
            areas.iter().any(|a| a.process == process && (a.start..a.end).contains(&(mib * MIB)))
        };
        view.lay_out(&layout).unwrap();
        alive.retain(|(process, mib)| holds(&before, *process, *mib));
        for (process, mib) in [1, 2, 3].into_iter().flat_map(|p| (0..300).map(move |m| (p, m))) {
            if !holds(&layout, process, mib) {
                assert!(view.read(process, mib * MIB, &mut [0]).is_err());
                continue;
            }
            let expected = if alive.contains(&(process, mib)) { mark(process, mib) } else { [0; 16] };
            assert_eq!(found(&view, process, mib), expected, "{process}: {mib}, {layout:?}");
        }
        before = layout;
    }
}

#[test]
fn segments_are_emptied_and_given_up() {
    let Some(Waiting { mut view, session, .. }) = waiting() else { return };
    let spec = |id, name: &str| SegmentSpec { id, size: 4 * MIB, name: name.into() };
    view.make_segments(&[spec(7, "seven"), spec(8, "")]).unwrap();
    for id in [7, 8] {
        view.write_segment(id, 0, &vec![1; 4 << 20]).unwrap();
    }
    let span = |start, end| Span { start, end };
    view.empty_segment(7, &[span(0, MIB), span(2 * MIB, 3 * MIB)]).unwrap();
    assert!(view.empty_segment(7, &[span(3 * MIB, 5 * MIB)]).is_err());
    assert!(view.empty_segment(9, &[span(0, MIB)]).is_err());
    let content = |name: &str| std::fs::read(memfd(session.pid(), name)).unwrap();
    let expected: Vec<u8> = [0, 1, 0, 1].iter().flat_map(|byte| vec![*byte; 1 << 20]).collect();
    assert!(content("seven") == expected);
    let held = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(memfd(session.pid(), name)).unwrap().blocks() * 512
    };
    assert_eq!((held("seven"), held("/dev/zero")), (2 * MIB, 4 * MIB));
    view.drop_segment(8).unwrap();
    assert_eq!(held("/dev/zero"), 0);
    assert!(view.drop_segment(8).is_err() && view.write_segment(8, 0, &[1]).is_err());
    // Of the same number, and yet another; and nobody waits for what was given up.
    view.make_segments(&[spec(8, "eight")]).unwrap();
    view.write_segment(8, 0, &vec![2; 4 << 20]).unwrap();
    assert!(content("eight") == vec![2; 4 << 20]);
    view.drop_segment(8).unwrap();
    assert!(matches!(view.taken().unwrap_err(), ViewError::SegmentNotTaken { id: 7, .. }));
    view.drop_segment(7).unwrap();
    view.taken().unwrap();
}

/// Where the process `pid` has the memfd of this name.
fn memfd(pid: u32, name: &str) -> std::path::PathBuf {
    let mut files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|file| file.unwrap().path());
    let wanted = format!("/memfd:{name} (deleted)");
    files
        .find(|file| std::fs::read_link(file).is_ok_and(|target| target.as_os_str() == wanted.as_str()))
        .unwrap()
}

#[test]
fn what_is_discarded_is_empty() {
    let Some(Waiting { mut view, session: _session, .. }) = waiting() else { return };
    view.lay_out(&[area(1, 10, 20)]).unwrap();
    (10..20).for_each(|mib| stamp(&view, 1, mib));
    view.discard(
        1,
        &[Span { start: 12 * MIB, end: 13 * MIB }, Span { start: 15 * MIB, end: 15 * MIB + 4096 }],
    )
    .unwrap();
    for mib in 10..20 {
        let expected = if [12, 15].contains(&mib) { [0; 16] } else { mark(1, mib) };
        assert_eq!(found(&view, 1, mib), expected);
    }
    assert!(view.discard(1, &[Span { start: 19 * MIB, end: 21 * MIB }]).is_err());
    assert!(view.discard(2, &[Span { start: 12 * MIB, end: 13 * MIB }]).is_err());
}

/// KiB of huge pages that a process has.
fn huge_pages_of(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("AnonHugePages:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn blocks_are_huge_before_they_are_filled() {
    let Some(Waiting { mut view, session, .. }) = waiting() else { return };
    let huge = || huge_pages_of(session.pid());
    let kept_small = AreaSpec { no_huge: true, ..area(1, 100, 104) };
    view.lay_out(&[area(1, 11, 31), kept_small]).unwrap();
    stamp(&view, 1, 12);
    let span = |start, end| (1, Span { start: start * MIB, end: end * MIB });
    view.make_huge(&[span(11, 17), span(21, 24), span(30, 32), span(100, 104)]).unwrap();
    if huge() == 0 {
        println!("skipped: the kernel gives no huge pages");
        return;
    }
    // 12 to 16 and 22 to 24; at 30 is the end of an area.
    assert_eq!(huge(), 3 * 2048);
    assert_eq!(found(&view, 1, 12), mark(1, 12), "what had come is there");
    assert_eq!((found(&view, 1, 13), found(&view, 1, 22)), ([0; 16], [0; 16]));
    stamp(&view, 1, 22);
    assert_eq!(found(&view, 1, 22), mark(1, 22));
}

#[test]
fn full_blocks_become_huge() {
    let Some(Waiting { mut view, session, .. }) = waiting() else { return };
    let huge = || huge_pages_of(session.pid());
    let kept_small = AreaSpec { no_huge: true, ..area(1, 100, 104) };
    view.lay_out(&[area(1, 11, 31), kept_small]).unwrap();
    let full = vec![7; usize::try_from(20 * MIB).unwrap()];
    view.write(1, 11 * MIB, &full).unwrap();
    view.write(1, 100 * MIB, &full[..4 << 20]).unwrap();
    view.discard(1, &[Span { start: 21 * MIB, end: 21 * MIB + 4096 }]).unwrap();
    assert_eq!(huge(), 0);
    assert!(view.collapse(LIMIT).unwrap());
    if huge() == 0 {
        println!("skipped: the kernel gives no huge pages");
        return;
    }
    // 12 to 30 but for the block with the hole.
    assert_eq!(huge(), 8 * 2048);
    let mut found = full.clone();
    view.read(1, 11 * MIB, &mut found).unwrap();
    assert!(found[..10 << 20] == full[..10 << 20] && found[(10 << 20) + 4096..] == full[(10 << 20) + 4096..]);
}

#[test]
fn segments_are_made_once_and_bounded() {
    let Some(Waiting { mut view, session: _session, .. }) = waiting() else { return };
    let spec = |id: u64, size: u64| SegmentSpec { id, size, name: b"name".to_vec() };
    view.make_segments(&[spec(1, 8192)]).unwrap();
    view.make_segments(&[spec(2, 4096), spec(3, 100)]).unwrap();
    assert!(view.make_segments(&[spec(2, 4096)]).is_err());
    assert!(view.make_segments(&[spec(4, 1 << 30)]).is_err());
    view.write_segment(1, 4096, &[1; 4096]).unwrap();
    assert!(view.write_segment(1, 4097, &[1; 4096]).is_err());
    assert!(view.write_segment(5, 0, &[1]).is_err());
    view.arrange(&[]).unwrap();
    assert!(matches!(view.taken(), Err(ViewError::SegmentNotTaken { id: 1, times: 0 })));
}

#[test]
fn what_nobody_took_is_named() {
    let Some(Waiting { mut view, session: _session, .. }) = waiting() else { return };
    view.lay_out(&[area(1, 10, 20)]).unwrap();
    let placed = |start: u64, end: u64| Placed {
        process: 1,
        start: start * MIB,
        end: end * MIB,
        content: Content::Own,
    };
    assert!(view.arrange(&[placed(10, 21)]).is_err());
    view.arrange(&[placed(10, 20)]).unwrap();
    let error = view.taken().unwrap_err();
    assert!(matches!(error, ViewError::NotTaken { process: 1, times: 0, .. }), "{error}");
}

#[test]
fn a_criu_that_was_killed_is_noticed() {
    let Some(Waiting { mut view, session, .. }) = waiting() else { return };
    view.lay_out(&[area(1, 10, 20)]).unwrap();
    kill(Pid::from_raw(i32::try_from(session.pid()).unwrap()), Signal::SIGKILL).unwrap();
    let error = view.lay_out(&[area(1, 10, 30)]).unwrap_err();
    assert!(matches!(error, ViewError::Gone { .. }), "{error}");
    drop(session);
    assert!(view.write(1, 10 * MIB, b"lost").is_err());
}

#[test]
fn a_criu_that_hangs_runs_out_of_time() {
    let Some(Waiting { mut view, session, .. }) = waiting_within(Duration::from_millis(300)) else { return };
    view.lay_out(&[]).unwrap();
    kill(Pid::from_raw(i32::try_from(session.pid()).unwrap()), Signal::SIGSTOP).unwrap();
    let error = view.lay_out(&[area(1, 10, 30)]).unwrap_err();
    assert!(matches!(error, ViewError::TimedOut { .. }), "{error}");
    assert!(
        matches!(view.lay_out(&[]), Err(ViewError::Gone { .. })),
        "a late answer may be taken for another"
    );
}
