//! An application, and the two containers that it may live in.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fastmig_migrate::ends::{
    Choice, Doubt, EndError, Files, ImageSource, Images, InDoubt, Leaving, Memory, Owing, Pass, Place, Round,
    Waiting,
};
use fastmig_migrate::fetch::{Errand, Fetcher};
use fastmig_migrate::journal::Role;
use fastmig_migrate::options::Strategy;
use fastmig_migrate::transport::Connection;
use serde_json::{json, Value};

use super::random;

/// What a doubt is about.
pub const DOUBTFUL: InDoubt = InDoubt { process: 1001, start: 0x1000, end: 0x9000 };

/// What one of the containers holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Standby,
    Running,
    Frozen,
    Fenced,
    Held,
}

/// Where the application lives. Both containers and all that is true of them, whatever the programs believe.
pub struct World {
    pub lives: Mutex<Lives>,
    /// Images of memory.
    pub memory: BTreeMap<String, Vec<u8>>,
    pub small: Vec<u8>,
    pub large: Vec<u8>,
    /// The processes on either side have died: what they hold is not put in order when dropped.
    pub source_died: AtomicBool,
    pub destination_died: AtomicBool,
    /// How long a read of memory takes.
    pub slow: AtomicU64,
    pub files: Mutex<Vec<u8>>,
    /// What travels in rounds, as the application has it now, and what of it is at the destination.
    pub tracked: Mutex<Vec<u8>>,
    pub placed: Mutex<Vec<u8>>,
    /// How many bytes it writes between two rounds, and how much of the processor it has lost.
    pub writes: AtomicU64,
    pub throttled: AtomicU64,
    /// How long the destination does something else after each round, in milliseconds.
    pub aside_ms: AtomicU64,
    /// The destination puts one byte in a wrong place.
    pub spoils: AtomicBool,
    /// The source, or the destination, finds that CRIU has not seen memory as it should.
    pub doubts: Mutex<Option<Role>>,
    /// How the destination comes to the source, and who fetches there what follows.
    pub dial_source: Mutex<Option<Arc<Dial>>>,
    pub follower: Mutex<Option<Arc<Follower>>>,
}

#[derive(Debug)]
pub struct Lives {
    pub source: Life,
    pub destination: Life,
    /// Both ran at the same time, or what was fenced ran again though it had moved.
    pub sins: Vec<String>,
    pub frozen_at: Option<Instant>,
    pub longest_frozen: Duration,
}

impl Lives {
    fn judge(&mut self, step: &str) {
        if self.source == Life::Running && self.destination == Life::Running {
            self.sins.push(format!("{step}: both run"));
        }
        if self.source == Life::Frozen || self.source == Life::Fenced {
            self.frozen_at.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.frozen_at.take() {
            self.longest_frozen = self.longest_frozen.max(since.elapsed());
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("lives", &self.lives).finish_non_exhaustive()
    }
}

impl World {
    pub fn new(seed: u64, images: usize, most: usize) -> Arc<Self> {
        let image = |index: usize| {
            let mut content = random(seed + index as u64, most * (index + 1) / images + index);
            // Every third page is zeros.
            content.chunks_mut(4096).step_by(3).for_each(|page| page.fill(0));
            (format!("pages-{index}.img"), content)
        };
        Arc::new(Self {
            lives: Mutex::new(Lives {
                source: Life::Running,
                destination: Life::Standby,
                sins: Vec::new(),
                frozen_at: None,
                longest_frozen: Duration::ZERO,
            }),
            memory: (0..images).map(image).collect(),
            small: random(seed, 3 << 19),
            large: random(seed, 5 << 19),
            source_died: AtomicBool::new(false),
            destination_died: AtomicBool::new(false),
            slow: AtomicU64::new(0),
            files: Mutex::default(),
            tracked: Mutex::new(random(seed + 99, most)),
            placed: Mutex::default(),
            writes: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            aside_ms: AtomicU64::new(0),
            spoils: AtomicBool::new(false),
            doubts: Mutex::default(),
            dial_source: Mutex::default(),
            follower: Mutex::default(),
        })
    }

    fn doubt(&self, end: Role) -> Result<(), EndError> {
        match *self.doubts.lock().unwrap() == Some(end) {
            true => {
                Err(Doubt { reason: "CRIU has asked for half of it".into(), mappings: vec![DOUBTFUL] }.into())
            }
            false => Ok(()),
        }
    }

    pub fn lives(&self) -> (Life, Life) {
        let lives = self.lives.lock().unwrap();
        (lives.source, lives.destination)
    }

    pub fn source(&self, life: Life, step: &str) {
        let mut lives = self.lives.lock().unwrap();
        lives.source = life;
        lives.judge(step);
    }

    pub fn destination(&self, life: Life, step: &str) {
        let mut lives = self.lives.lock().unwrap();
        lives.destination = life;
        lives.judge(step);
    }
}

/// The application at the source.
#[derive(Debug)]
pub struct FakeLeaving {
    pub world: Arc<World>,
    decided: bool,
    rounds: u32,
    memory_rounds: u32,
}

impl FakeLeaving {
    pub fn new(world: &Arc<World>) -> Box<Self> {
        Box::new(Self { world: Arc::clone(world), decided: false, rounds: 0, memory_rounds: 0 })
    }
}

impl FakeLeaving {
    /// All of it, once it is frozen.
    fn owe(&self) -> Round {
        let frozen = self.world.lives().0 == Life::Frozen;
        let tracked = self.world.tracked.lock().unwrap().len() as u64;
        let owed = frozen.then(|| Arc::new(FakeOwed(Arc::clone(&self.world))) as Arc<dyn Memory>);
        let size = if frozen { tracked } else { 0 };
        Round {
            plan: size.to_le_bytes().to_vec(),
            memory: Arc::new(FakeRound(BTreeMap::new())),
            owed,
            scan: Duration::ZERO,
            tracked,
            processes: 1,
        }
    }
}

impl Drop for FakeLeaving {
    fn drop(&mut self) {
        // A watchdog thaws what is not fenced, even when the process has died.
        if !self.decided && self.world.lives().0 == Life::Frozen {
            self.world.source(Life::Running, "dropped");
        }
    }
}

impl Leaving for FakeLeaving {
    fn passport(&mut self) -> Result<Value, EndError> {
        Ok(json!({"cpu": "any"}))
    }

    fn pack_files(&mut self, out: &mut dyn Write) -> Result<Files, EndError> {
        self.rounds += 1;
        // Each round is smaller than the one before.
        let bytes = random(7, 3_000_000 / self.rounds.pow(4) as usize);
        out.write_all(&bytes)?;
        Ok(Files { entries: 1, bytes: bytes.len() as u64 })
    }

    fn choose(&mut self, asked: Strategy) -> Result<Choice, EndError> {
        // What the older tests expect, unless something else is asked for.
        let strategy = if asked == Strategy::Auto { Strategy::StopCopy } else { asked };
        Ok(Choice { strategy, why: "asked for".into() })
    }

    fn ready(&mut self, _: Strategy) -> Result<(), EndError> {
        Ok(())
    }

    fn round(&mut self, pass: Pass) -> Result<Round, EndError> {
        self.memory_rounds += 1;
        if pass == Pass::Owe {
            return Ok(self.owe());
        }
        let mut tracked = self.world.tracked.lock().unwrap();
        let lost = self.world.throttled.load(Ordering::SeqCst).min(100);
        let writes = self.world.writes.load(Ordering::SeqCst) * (100 - lost) / 100;
        let written = match self.memory_rounds {
            1 => tracked.len(),
            // Frozen, it has written what it wrote before.
            _ => usize::try_from(writes).unwrap().min(tracked.len()),
        };
        let fresh = random(u64::from(self.memory_rounds), written);
        tracked[..written].copy_from_slice(&fresh);
        let name = |half| format!("round-{}-{half}", self.memory_rounds);
        let (first, second) = fresh.split_at(written / 2);
        let images = BTreeMap::from([(name(0), first.to_vec()), (name(1), second.to_vec())]);
        Ok(Round {
            plan: (written as u64).to_le_bytes().to_vec(),
            memory: Arc::new(FakeRound(images)),
            owed: None,
            scan: Duration::ZERO,
            tracked: tracked.len() as u64,
            processes: 1,
        })
    }

    fn throttle(&mut self, percent: u32) -> Result<(), EndError> {
        self.world.throttled.store(percent.into(), Ordering::SeqCst);
        Ok(())
    }

    fn fingerprint(&mut self) -> Result<Vec<u8>, EndError> {
        Ok(self.world.tracked.lock().unwrap().clone())
    }

    fn freeze(&mut self) -> Result<(), EndError> {
        self.world.source(Life::Frozen, "freeze");
        Ok(())
    }

    fn dump(&mut self, images: &mut dyn Images) -> Result<Value, EndError> {
        self.world.doubt(Role::Source)?;
        images.image("core-1.img", self.world.small.clone())?;
        let (first, rest) = self.world.large.split_at(1000);
        images.part("shmem-1.img", first.to_vec(), false)?;
        images.image("inventory.img", Vec::new())?;
        images.part("shmem-1.img", rest.to_vec(), false)?;
        images.part("shmem-1.img", Vec::new(), true)?;
        Ok(json!({"pid": 1001}))
    }

    fn memory(&self) -> Result<Arc<dyn Memory>, EndError> {
        Ok(Arc::new(FakeMemory(Arc::clone(&self.world))))
    }

    fn owed(&self) -> Result<Arc<dyn Memory>, EndError> {
        if self.world.lives().0 != Life::Fenced {
            return Err("it is not there any more".into());
        }
        Ok(Arc::new(FakeOwed(Arc::clone(&self.world))))
    }

    fn fence(&mut self) -> Result<(), EndError> {
        self.world.source(Life::Fenced, "fence");
        Ok(())
    }

    fn resume(mut self: Box<Self>) -> Result<(), EndError> {
        self.decided = true;
        match self.world.lives().0 {
            Life::Standby => Err("it was ended".into()),
            _ => {
                self.world.source(Life::Running, "resume");
                Ok(())
            }
        }
    }

    fn end(mut self: Box<Self>) -> Result<(), EndError> {
        self.decided = true;
        self.world.source(Life::Standby, "end");
        Ok(())
    }
}

#[derive(Debug)]
struct FakeRound(BTreeMap<String, Vec<u8>>);

impl Memory for FakeRound {
    fn images(&self) -> Vec<(String, u64)> {
        self.0.iter().map(|(name, content)| (name.clone(), content.len() as u64)).collect()
    }

    fn read(&self, image: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        into.copy_from_slice(&self.0[image][offset..offset + into.len()]);
        Ok(())
    }
}

/// What follows the application, in what is left of it at the source.
#[derive(Debug)]
struct FakeOwed(Arc<World>);

impl Memory for FakeOwed {
    fn images(&self) -> Vec<(String, u64)> {
        vec![("owed".to_owned(), self.0.tracked.lock().unwrap().len() as u64)]
    }

    fn read(&self, _: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        thread::sleep(Duration::from_millis(self.0.slow.load(Ordering::Relaxed)));
        let mut lives = self.0.lives.lock().unwrap();
        if lives.source != Life::Frozen && lives.source != Life::Fenced {
            let sin = format!("memory is read of what is {:?}", lives.source);
            lives.sins.push(sin);
        }
        drop(lives);
        let offset = usize::try_from(offset).unwrap();
        into.copy_from_slice(&self.0.tracked.lock().unwrap()[offset..offset + into.len()]);
        Ok(())
    }
}

/// The application at the destination, while memory follows it.
#[derive(Debug)]
struct FakeOwing {
    world: Arc<World>,
    follower: Arc<Follower>,
}

/// Who fetches what follows, whatever becomes of the daemon.
#[derive(Debug)]
pub struct Follower {
    fetcher: Fetcher,
    done: AtomicU64,
}

/// Connects to the source.
pub type Dial = dyn Fn() -> io::Result<Box<dyn Connection>> + Send + Sync;

impl Owing for FakeOwing {
    fn wait(&self, patience: Duration) -> Result<bool, String> {
        let end = Instant::now() + patience;
        let size = self.world.placed.lock().unwrap().len();
        while Instant::now() < end {
            let done = &self.follower.done;
            let at = usize::try_from(done.load(Ordering::SeqCst)).unwrap();
            let mut piece = vec![0; (size - at).min(300_000)];
            if piece.is_empty() {
                return Ok(true);
            }
            let fetched = self.follower.fetcher.fetch("owed", at as u64, &mut piece, at % 2 == 0);
            fetched.map_err(|error| error.to_string())?;
            self.world.placed.lock().unwrap()[at..at + piece.len()].copy_from_slice(&piece);
            done.store((at + piece.len()) as u64, Ordering::SeqCst);
        }
        Ok(false)
    }

    fn told(&self) -> (u64, u64) {
        (self.follower.done.load(Ordering::SeqCst), 7)
    }

    fn settle(self: Box<Self>) -> Result<(), EndError> {
        if *self.world.placed.lock().unwrap() != *self.world.tracked.lock().unwrap() {
            self.world.lives.lock().unwrap().sins.push("what followed is not what was owed".to_owned());
        }
        Ok(())
    }

    fn lose(self: Box<Self>, _: &str) -> Result<(), EndError> {
        self.world.destination(Life::Standby, "lose");
        Ok(())
    }
}

#[derive(Debug)]
struct FakeMemory(Arc<World>);

impl Memory for FakeMemory {
    fn images(&self) -> Vec<(String, u64)> {
        self.0.memory.iter().map(|(name, content)| (name.clone(), content.len() as u64)).collect()
    }

    fn read(&self, image: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        thread::sleep(Duration::from_millis(self.0.slow.load(Ordering::Relaxed)));
        let content = self.0.memory.get(image).ok_or(io::ErrorKind::NotFound)?;
        let offset = usize::try_from(offset).unwrap();
        into.copy_from_slice(&content[offset..offset + into.len()]);
        Ok(())
    }
}

/// The container that waits.
#[derive(Debug)]
pub struct FakeWaiting {
    world: Arc<World>,
    decided: bool,
}

impl FakeWaiting {
    pub fn new(world: &Arc<World>) -> Box<Self> {
        Box::new(Self { world: Arc::clone(world), decided: false })
    }
}

impl FakeWaiting {
    fn owing(&self) -> Option<Box<dyn Owing>> {
        let follower = self.world.follower.lock().unwrap().clone()?;
        Some(Box::new(FakeOwing { world: Arc::clone(&self.world), follower }))
    }
}

impl Drop for FakeWaiting {
    fn drop(&mut self) {
        if !self.decided && !self.world.destination_died.load(Ordering::SeqCst) {
            // Nothing follows who has not come.
            *self.world.follower.lock().unwrap() = None;
            self.world.destination(Life::Standby, "dropped");
        }
    }
}

impl Waiting for FakeWaiting {
    fn check(&mut self, passport: &Value) -> Result<(), EndError> {
        match passport["cpu"].as_str() {
            Some("any") => Ok(()),
            other => Err(format!("no CPU {other:?} here").into()),
        }
    }

    fn unpack_files(&mut self, archive: &mut dyn Read) -> Result<Files, EndError> {
        let mut files = self.world.files.lock().unwrap();
        files.clear();
        archive.read_to_end(&mut files)?;
        Ok(Files { entries: 1, bytes: files.len() as u64 })
    }

    fn ready(&mut self, _: Strategy) -> Result<(), EndError> {
        Ok(())
    }

    fn owed(&mut self, errand: &Errand) -> Result<(), EndError> {
        let dial = self.world.dial_source.lock().unwrap().clone().ok_or("no way to the source")?;
        let fetcher = Fetcher::start(errand.clone(), Box::new(move || dial()))?;
        let follower = Follower { fetcher, done: AtomicU64::new(0) };
        *self.world.follower.lock().unwrap() = Some(Arc::new(follower));
        Ok(())
    }

    fn round(&mut self, plan: &[u8]) -> Result<Arc<dyn Place>, EndError> {
        let size = u64::from_le_bytes(plan.try_into().map_err(|_| "a plan that is none")?);
        let size = usize::try_from(size)?;
        let mut placed = self.world.placed.lock().unwrap();
        let room = placed.len().max(size);
        placed.resize(room, 0);
        Ok(Arc::new(FakePlace { world: Arc::clone(&self.world), half: size / 2 }))
    }

    fn round_is_there(&mut self) -> Result<(), EndError> {
        thread::sleep(Duration::from_millis(self.world.aside_ms.load(Ordering::SeqCst)));
        Ok(())
    }

    fn still_waits(&mut self) -> Result<(), EndError> {
        Ok(())
    }

    fn compare(&mut self, fingerprint: &[u8]) -> Result<u64, EndError> {
        if *self.world.placed.lock().unwrap() != fingerprint {
            return Err("memory differs from what stood still".into());
        }
        Ok(fingerprint.len() as u64 / 4096)
    }

    fn restore(&mut self, dumped: &Value, images: Arc<dyn ImageSource>) -> Result<(), EndError> {
        self.world.doubt(Role::Destination)?;
        if dumped["pid"] != 1001 {
            return Err("an application without its pid".into());
        }
        let images = &*images;
        expect(images, "core-1.img", &self.world.small)?;
        expect(images, "inventory.img", &[])?;
        expect(images, "shmem-1.img", &self.world.large)?;
        if images.open("core-1.img").is_some() || images.open("none.img").is_some() {
            return Err("an image that is not there, or twice".into());
        }
        // As CRIU does: every process reads its own memory at the same time.
        let restored: Result<Vec<()>, EndError> = thread::scope(|scope| {
            let memory = self.world.memory.iter();
            let readers: Vec<_> =
                memory.map(|(name, content)| scope.spawn(move || expect(images, name, content))).collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        restored?;
        self.world.destination(Life::Held, "restore");
        Ok(())
    }

    fn verify(&mut self) -> Result<(), EndError> {
        if let Some(follower) = &*self.world.follower.lock().unwrap() {
            follower.fetcher.be_patient()?;
        }
        match self.world.lives().1 {
            Life::Held => Ok(()),
            other => Err(format!("the application is {other:?}").into()),
        }
    }

    fn release(mut self: Box<Self>) -> Result<Option<Box<dyn Owing>>, EndError> {
        self.decided = true;
        self.world.destination(Life::Running, "release");
        Ok(self.owing())
    }

    fn follow(mut self: Box<Self>) -> Result<Box<dyn Owing>, EndError> {
        self.decided = true;
        self.world.destination(Life::Running, "follow");
        self.owing().ok_or_else(|| "nobody fetches".into())
    }

    fn lose(mut self: Box<Self>, _: &str) -> Result<(), EndError> {
        self.decided = true;
        self.world.destination(Life::Standby, "lose");
        Ok(())
    }

    fn abandon(mut self: Box<Self>) -> Result<(), EndError> {
        self.decided = true;
        if self.world.lives().1 == Life::Running {
            self.world.lives.lock().unwrap().sins.push("what runs was abandoned".to_owned());
        }
        *self.world.follower.lock().unwrap() = None;
        self.world.destination(Life::Standby, "abandon");
        Ok(())
    }
}

#[derive(Debug)]
struct FakePlace {
    world: Arc<World>,
    half: usize,
}

impl Place for FakePlace {
    fn write(&self, image: &str, offset: u64, content: &[u8]) -> io::Result<()> {
        let base = if image.ends_with("-0") { 0 } else { self.half };
        let at = base + usize::try_from(offset).unwrap();
        let mut placed = self.world.placed.lock().unwrap();
        placed[at..at + content.len()].copy_from_slice(content);
        if self.world.spoils.load(Ordering::SeqCst) {
            placed[at] ^= 1;
        }
        Ok(())
    }
}

/// Reads an image in odd pieces, and compares.
fn expect(images: &dyn ImageSource, name: &str, content: &[u8]) -> Result<(), EndError> {
    let mut reader = images.open(name).ok_or_else(|| format!("no image {name}"))?;
    let mut piece = vec![0; 300_007];
    let mut at = 0;
    loop {
        let read = reader.read(&mut piece)?;
        if read == 0 {
            break;
        }
        if content.get(at..at + read) != Some(&piece[..read]) {
            return Err(format!("image {name} is wrong from {at} on").into());
        }
        at += read;
    }
    if at != content.len() {
        return Err(format!("image {name} ends at {at} of {}", content.len()).into());
    }
    Ok(())
}
