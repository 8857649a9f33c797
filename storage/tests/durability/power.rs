//! The power goes at any moment.
//!
//! A seed is a few lives of one data directory. Each appends as scrapes and
//! remote writes do, seals, merges, deletes, copies, until its power is cut or
//! its process killed in the middle of some call; the next must start, have
//! everything that was promised, nothing that never was, and no hole.

use std::panic::AssertUnwindSafe;

use narthex_storage::append::{SourceId, SyncClass};
use narthex_storage::db::{Db, day_of_ms};
use narthex_storage::labels::Matcher;

use crate::disk::{Disk, EINTR, EIO, ENOSPC, EROFS, Errors, Only};
use crate::model::{Model, read_all};
use crate::rng::Rng;
use crate::world::{DAY_MS, ROOT, World};

struct Life {
    rng: Rng,
    world: World,
    snapshots: Vec<(String, Model)>,
    is_loud: bool,
}

/// Why a life is over.
enum End {
    /// A call failed, for the power is off.
    Off,
    /// All that was planned is done.
    Done,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        // Near a midnight now and then.
        let start_ms = 19_700 * DAY_MS + rng.below(DAY_MS as u64) as i64;
        let start_ms = if rng.one_in(3) { 19_701 * DAY_MS - 60_000 } else { start_ms };
        let mut world = World::new(start_ms);
        world.window_ms = if rng.one_in(4) { 600_000 } else { 0 };
        world.has_segments = rng.one_in(2);
        world.log_slack_bytes = if rng.one_in(2) { 0 } else { 1000 };
        Self {
            rng,
            world,
            snapshots: Vec::new(),
            is_loud: std::env::var_os("NARTHEX_POWER_SEED").is_some(),
        }
    }

    /// For somebody who looks for the reason of one seed.
    fn say(&self, text: impl FnOnce() -> String) {
        if self.is_loud {
            eprintln!("{}: call {}: {}", self.world.now_ms, self.world.disk.calls(), text());
        }
    }

    /// Starts the storage on what is left. `None` if the power went meanwhile.
    fn start(&mut self, is_kill: bool) -> Option<Db> {
        let db = match Db::open(self.world.options(ROOT)) {
            Ok(db) => db,
            Err(_) if self.world.disk.is_off() => return None,
            Err(e) => panic!("does not start: {e}"),
        };
        match read_all(&db) {
            Ok(found) => {
                self.say(|| format!("started, {:?}, {:?}", db.stats().replay, db.damages()));
                self.world.model.settle(&found, is_kill, self.world.now_ms);
            }
            Err(_) if self.world.disk.is_off() => return None,
            Err(e) => panic!("cannot be read: {e}"),
        }
        Some(db)
    }

    /// Lives until the power goes or the plan ends.
    fn live(&mut self, db: &Db, steps: u64) -> End {
        for _ in 0..steps {
            let stepped = self.step(db);
            if self.world.disk.failed() > 0 && !self.world.disk.is_off() && !db.stats().log_lags {
                self.world.model.caught_up();
            }
            self.say(|| format!("failed {}, {stepped:?}", self.world.disk.failed()));
            match stepped {
                Ok(()) if !self.world.disk.is_off() => {
                    if self.rng.clone().one_in(10) {
                        self.compare(db);
                    }
                }
                Ok(()) => return End::Off,
                Err(_) if self.world.disk.is_off() => return End::Off,
                Err(_) if self.world.disk.failed() > 0 => {}
                Err(e) => panic!("a call failed without a fault: {e}"),
            }
        }
        End::Done
    }

    /// Some calls of this life fail.
    fn fail_some(&mut self) {
        let errors = self.rng.one_in(3).then(|| Errors {
            call: self.rng.below(300),
            count: self.rng.rather_small(30),
            errno: [EIO, ENOSPC, EROFS, EINTR][self.rng.below(4) as usize],
            only: [Only::Any, Only::Writes, Only::Syncs][self.rng.below(3) as usize],
        });
        self.say(|| format!("{errors:?}"));
        self.world.disk.fail(errors);
    }

    /// While the power is on, everything is there.
    fn compare(&self, db: &Db) {
        if let Ok(found) = read_all(db) {
            self.world.model.compare(&found);
        }
    }

    fn step(&mut self, db: &Db) -> Result<(), Box<dyn std::error::Error>> {
        let step = self.rng.below(40);
        self.say(|| format!("step {step}"));
        match step {
            0 => {
                db.sync()?;
                self.world.model.synced();
            }
            1 => {
                db.seal_all()?;
                self.world.model.synced();
            }
            2 => db.merge_day(day_of_ms(self.world.now_ms))?,
            3 => self.delete(db)?,
            4 => {
                db.clean_tombstones()?;
            }
            5 if self.snapshots.len() < 2 => self.copy(db)?,
            6 => self.world.pass(31 * 60_000),
            7 => self.world.pass(25 * 60_000),
            8 => self.world.pass(3 * 3_600_000),
            9..=11 => {
                let wait = self.rng.rather_small(20_000) as i64;
                self.world.pass(wait);
                db.run_maintenance(self.world.now_ms)?;
                self.world.model.maintained(self.world.now_ms);
            }
            12..=30 => self.scrape(db)?,
            _ => self.remote_write(db)?,
        }
        if self.rng.one_in(2) {
            db.run_maintenance(self.world.now_ms)?;
            self.world.model.maintained(self.world.now_ms);
        }
        Ok(())
    }

    /// Some rounds of all targets.
    fn scrape(&mut self, db: &Db) -> Result<(), Box<dyn std::error::Error>> {
        for _ in 0..self.rng.rather_small(8) {
            self.world.pass(5000);
            for target in 0..3u32 {
                // Series come and go.
                let age = ((self.world.now_ms / 60_000) % 20) as u32;
                let ids: Vec<u32> =
                    (0..4).map(|i| target * 1000 + i * 20 + age / (i + 1)).collect();
                self.world.append(
                    db,
                    SourceId(target.into()),
                    SyncClass::Scrape,
                    &[(self.world.now_ms, ids)],
                )?;
            }
        }
        Ok(())
    }

    /// Series of its own and of the targets, several rows at once.
    fn remote_write(&mut self, db: &Db) -> Result<(), Box<dyn std::error::Error>> {
        let mut rows = Vec::new();
        for _ in 0..self.rng.rather_small(6) {
            let late_ms = if self.world.window_ms > 0 { self.rng.below(300_000) as i64 } else { 0 };
            self.world.pass(self.rng.clone().below(3000) as i64 + 1);
            let at = self.world.now_ms - if self.rng.one_in(3) { late_ms } else { 0 };
            let first = self.rng.below(3) as u32 * 1000 + self.rng.below(60) as u32;
            let ids = (0..self.rng.rather_small(5) as u32).map(|i| first + i * 7).collect();
            rows.push((at, ids));
        }
        self.world.append(db, SourceId(9), SyncClass::RemoteWrite, &rows)
    }

    fn delete(&mut self, db: &Db) -> Result<(), Box<dyn std::error::Error>> {
        let name = self.rng.below(5) as u32;
        let end_ms = self.world.now_ms;
        let start_ms = end_ms - self.rng.rather_small(3_600_000) as i64;
        // What is late must not fall into it.
        self.world.pass(700_000);
        let matcher = Matcher::equal("__name__", format!("m{name}"));
        let deleted = db.delete(&[vec![matcher]], start_ms, end_ms);
        let is_hit = |id: u32, t: i64| id % 5 == name && (start_ms..=end_ms).contains(&t);
        self.world.model.delete(is_hit, deleted.is_ok());
        Ok(deleted?)
    }

    fn copy(&mut self, db: &Db) -> Result<(), Box<dyn std::error::Error>> {
        let target = format!("{ROOT}/snapshots/{}", self.rng.next());
        db.snapshot(&self.world.place(&target))?;
        self.world.model.synced();
        self.snapshots.push((target, self.world.model.clone()));
        Ok(())
    }

    /// The next life's disk; whether the process was killed only.
    fn crash(&mut self) -> bool {
        let is_kill = self.rng.one_in(4);
        self.say(|| if is_kill { "killed" } else { "power cut" }.to_owned());
        let sizes = |disk: &Disk| -> Vec<(String, usize)> {
            disk.files().into_iter().map(|(name, data)| (name, data.len())).collect()
        };
        let before = self.is_loud.then(|| sizes(&self.world.disk));
        self.world.disk = if is_kill {
            self.world.disk.after_kill()
        } else {
            self.world.disk.after_power_cut(&mut self.rng)
        };
        self.say(|| format!("files {before:?}, left {:?}", sizes(&self.world.disk)));
        is_kill
    }
}

/// What the seeds went through.
#[derive(Debug, Default)]
struct Tally {
    starts: u64,
    power_cuts: u64,
    kills: u64,
    failed_calls: u64,
}

/// Runs one seed; what a life of it found is asserted on the way.
fn run(seed: u64, tally: &mut Tally) {
    let mut life = Life::new(seed);
    let mut is_kill = true;
    for _ in 0..1 + life.rng.below(4) {
        let call = life.rng.rather_small(800);
        life.world.disk.cut_power_at(Some(call));
        let db = life.start(is_kill);
        let is_settled = db.is_some();
        if let Some(db) = db {
            life.fail_some();
            let steps = life.rng.rather_small(40);
            match life.live(&db, steps) {
                End::Done if life.rng.one_in(3) && db.close().is_ok() => life.world.model.synced(),
                _ => {}
            }
            tally.failed_calls += life.world.disk.failed();
            // What is dropped must not write any more.
            life.world.disk.cut_power_at(Some(0));
            life.world.stop(db);
        }
        let was_killed = life.crash();
        tally.starts += 1;
        *(if was_killed { &mut tally.kills } else { &mut tally.power_cuts }) += 1;
        // A start that was cut short settles nothing.
        is_kill = was_killed && (is_settled || is_kill);
    }
    let db = life.start(is_kill).expect("the power is on");
    life.world.compare(&db);
    drop(db);
    for (target, model) in std::mem::take(&mut life.snapshots) {
        let copy = Db::open(life.world.options(&target)).expect("open the snapshot");
        model.compare(&read_all(&copy).expect("read"));
        drop(copy);
    }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    match (number("NARTHEX_POWER_SEED"), number("NARTHEX_POWER_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(crate::POWER_SEEDS),
    }
}

#[test]
fn nothing_durable_is_lost_and_no_hole_is_left() {
    let mut failed = Vec::new();
    let mut tally = Tally::default();
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    let quiet = count > 1;
    if quiet {
        std::panic::set_hook(Box::new(|_| {}));
    }
    for seed in seeds {
        if let Err(cause) = std::panic::catch_unwind(AssertUnwindSafe(|| run(seed, &mut tally))) {
            let text = cause.downcast_ref::<String>().cloned();
            let text = text.or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            failed.push((seed, text.unwrap_or_default()));
        }
        if failed.len() >= 20 {
            break;
        }
    }
    let _ = std::panic::take_hook();
    println!("{count} seeds: {tally:?}");
    assert!(failed.is_empty(), "failing seeds: {failed:#?}");
}
