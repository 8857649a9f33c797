//! A disk that forgets what was not synced.
//!
//! What a call does is visible at once, and durable only later: bytes of a
//! file when the file is synced, names when their directory is. When the power
//! goes, of everything else an arbitrary part is left: writes in pieces, out
//! of order, as zeros or garbage; names created, removed and renamed in any
//! combination.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use narthex_storage::engine::fs::{File, FileSystem, Lock, OpenMode};

use crate::rng::Rng;

/// A disk, shared by all that is opened on it.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    names: Names,
    durable: Names,
    /// Changes of names that are not durable: directory, change.
    pending: Vec<(String, Change)>,
    calls: u64,
    /// The call at which the power goes.
    cut_at: Option<u64>,
    errors: Option<Errors>,
    /// Calls that failed because of `errors`.
    failed: u64,
    /// Files that may not be opened.
    forbidden: Vec<String>,
    is_off: bool,
    is_locked: bool,
    /// Bytes that all files may have.
    capacity: Option<u64>,
}

type Names = BTreeMap<String, Entry>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Directory,
    File(usize),
}

#[derive(Debug, Clone)]
enum Change {
    Add(String, Entry),
    Remove(String),
    Rename(String, String, Entry),
}

#[derive(Debug, Clone, Default)]
struct Node {
    data: Vec<u8>,
    durable: Vec<u8>,
    /// Up to here the two are the same.
    common: usize,
    /// What a failed sync gave up: not durable, whatever later syncs say.
    lost: Vec<std::ops::Range<usize>>,
}

/// Calls that go wrong.
#[derive(Debug, Clone, Copy)]
pub struct Errors {
    /// The first of them, counted from the plan.
    pub call: u64,
    /// How many fail.
    pub count: u64,
    pub errno: i32,
    pub only: Only,
}

/// Which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    Any,
    /// Those that change something.
    Writes,
    Syncs,
    Reads,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Sync,
}

/// Input/output error.
pub const EIO: i32 = 5;
/// Interrupted.
pub const EINTR: i32 = 4;
/// Permission denied.
pub const EACCES: i32 = 13;
/// No space left.
pub const ENOSPC: i32 = 28;
/// Read-only file system.
pub const EROFS: i32 = 30;

impl State {
    fn call(&mut self, kind: Kind) -> io::Result<()> {
        if self.is_off {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let now = self.calls;
        self.calls += 1;
        if self.cut_at.is_some_and(|at| at <= now) {
            self.is_off = true;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let Some(errors) = &mut self.errors else { return Ok(()) };
        let is_hit = match errors.only {
            Only::Any => true,
            Only::Writes => kind != Kind::Read,
            Only::Syncs => kind == Kind::Sync,
            Only::Reads => kind == Kind::Read,
        };
        if !is_hit || now < errors.call || errors.count == 0 {
            return Ok(());
        }
        errors.count -= 1;
        self.failed += 1;
        Err(io::Error::from_raw_os_error(errors.errno))
    }

    fn change(&mut self, change: Change) {
        let directory = match &change {
            Change::Add(name, _) | Change::Remove(name) | Change::Rename(_, name, _) => {
                parent(name)
            }
        };
        self.pending.push((directory.to_owned(), change.clone()));
        apply(&mut self.names, change);
    }

    fn room(&self, wanted: usize) -> usize {
        let Some(capacity) = self.capacity else { return wanted };
        wanted.min(capacity.saturating_sub(self.used()) as usize)
    }

    fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|e| match e {
            Entry::File(node) => Some(*node),
            Entry::Directory => None,
        });
        let mut files: Vec<usize> = files.collect();
        files.sort_unstable();
        files.dedup();
        files.into_iter().map(|node| self.nodes[node].data.len() as u64).sum()
    }
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn apply(names: &mut Names, change: Change) {
    match change {
        Change::Add(name, entry) => drop(names.insert(name, entry)),
        Change::Remove(name) => drop(names.remove(&name)),
        Change::Rename(from, to, entry) => {
            if names.get(&from) == Some(&entry) {
                names.remove(&from);
            }
            names.insert(to, entry);
        }
    }
}

impl Node {
    fn of(data: Vec<u8>) -> Self {
        Self { common: data.len(), durable: data.clone(), data, lost: Vec::new() }
    }

    fn sync(&mut self) {
        self.durable.truncate(self.common);
        self.durable.extend_from_slice(&self.data[self.common..]);
        self.common = self.data.len();
        for range in &self.lost {
            let end = range.end.min(self.durable.len());
            self.durable[range.start.min(end)..end].fill(0);
        }
        // What was lost differs from what is read as long as the cache lives.
        if let Some(first) = self.lost.iter().map(|r| r.start).min() {
            self.common = self.common.min(first);
        }
    }

    /// A sync failed: the kernel forgets that these bytes must be written.
    fn fail_sync(&mut self) {
        if self.common < self.data.len() {
            self.lost.push(self.common..self.data.len());
        }
    }

    /// What a power cut leaves.
    fn after_power_cut(&self, rng: &mut Rng) -> Vec<u8> {
        let common = self.common;
        if common == self.data.len() && common == self.durable.len() {
            return self.data.clone();
        }
        match rng.below(5) {
            0 => self.durable.clone(),
            1 if self.lost.is_empty() => self.data.clone(),
            2 if self.lost.is_empty() => {
                let torn = common + rng.below((self.data.len() - common) as u64 + 1) as usize;
                self.data[..torn].to_vec()
            }
            _ => self.pieces(rng),
        }
    }

    /// Sectors of before, of now, of zeros, of garbage.
    fn pieces(&self, rng: &mut Rng) -> Vec<u8> {
        let sector = [1, 16, 64, 512, 4096][rng.below(5) as usize];
        let longest = self.data.len().max(self.durable.len());
        let len = match rng.below(3) {
            0 => self.durable.len(),
            1 => longest,
            _ => self.common + rng.below((longest - self.common) as u64 + 1) as usize,
        };
        // Nothing that is durable is cut off, unless it was truncated.
        let len =
            if self.data.len() >= self.durable.len() { len.max(self.durable.len()) } else { len };
        let mut left = self.durable[..self.common.min(len)].to_vec();
        let garbage = rng.one_in(4);
        while left.len() < len {
            let end = ((left.len() / sector + 1) * sector).min(len);
            let from = left.len();
            let of = |bytes: &[u8]| bytes.get(from..end).map(<[u8]>::to_vec);
            let is_durable = end <= self.durable.len() && self.data.len() >= self.durable.len();
            let piece = match rng.below(4) {
                0 | 1 => of(&self.data),
                2 => of(&self.durable),
                _ if is_durable => of(&self.durable),
                _ if garbage => Some((from..end).map(|_| rng.next() as u8).collect()),
                _ => None,
            };
            left.extend_from_slice(&piece.unwrap_or_else(|| vec![0; end - from]));
        }
        left
    }
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with it")
    }

    pub fn new() -> Self {
        Self::default()
    }

    /// Has the power go at a call, counted from now.
    pub fn cut_power_at(&self, call: Option<u64>) {
        let mut state = self.state();
        state.cut_at = call.map(|call| state.calls + call);
    }

    /// Has calls fail, counted from now.
    pub fn fail(&self, errors: Option<Errors>) {
        let mut state = self.state();
        let now = state.calls;
        state.failed = 0;
        state.errors = errors.map(|e| Errors { call: now + e.call, ..e });
    }

    /// Lets nobody open a file.
    pub fn forbid(&self, name: &str) {
        self.state().forbidden.push(name.to_owned());
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Calls that failed since they were told to.
    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    pub fn is_off(&self) -> bool {
        self.state().is_off
    }

    /// Gives all files together at most so many bytes from now on.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// All files, by name.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let file = |(name, entry): (&String, &Entry)| match entry {
            Entry::File(node) => Some((name.clone(), state.nodes[*node].data.clone())),
            Entry::Directory => None,
        };
        state.names.iter().filter_map(file).collect()
    }

    /// A disk with these files, all durable.
    pub fn with_files(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut state = State::default();
        for (name, data) in files {
            let mut directory = parent(name);
            while !directory.is_empty() {
                state.names.insert(directory.to_owned(), Entry::Directory);
                directory = parent(directory);
            }
            state.names.insert(name.clone(), Entry::File(state.nodes.len()));
            state.nodes.push(Node::of(data.clone()));
        }
        state.durable = state.names.clone();
        Self(Arc::new(Mutex::new(state)))
    }

    /// The disk as a killed process leaves it: all is there, durable or not.
    ///
    /// One thing is not modelled: a process that is killed between a sync that
    /// failed and what it does about it. Nobody would know.
    pub fn after_kill(&self) -> Self {
        let state = self.state();
        let mut nodes = state.nodes.clone();
        for node in &mut nodes {
            let lost = node.lost.iter().map(|r| r.start).min();
            node.common = node.common.min(lost.unwrap_or(usize::MAX));
            node.lost.clear();
        }
        let next = State {
            nodes,
            names: state.names.clone(),
            durable: state.durable.clone(),
            pending: state.pending.clone(),
            ..State::default()
        };
        Self(Arc::new(Mutex::new(next)))
    }

    /// The disk as a power cut leaves it.
    pub fn after_power_cut(&self, rng: &mut Rng) -> Self {
        let state = self.state();
        let mut names = state.durable.clone();
        let style = rng.below(4);
        let prefix = rng.below(state.pending.len() as u64 + 1) as usize;
        for (i, (_, change)) in state.pending.iter().enumerate() {
            let is_kept = match style {
                0 => false,
                1 => i < prefix,
                _ => !rng.one_in(2),
            };
            if is_kept {
                apply(&mut names, change.clone());
            }
        }
        let mut next = State::default();
        let mut moved = BTreeMap::new();
        for (name, entry) in &names {
            // In a directory whose own name was lost nothing is found.
            let mut directory = parent(name);
            let mut is_found = true;
            while !directory.is_empty() {
                is_found &= names.get(directory) == Some(&Entry::Directory);
                directory = parent(directory);
            }
            if !is_found {
                continue;
            }
            let entry = match entry {
                Entry::Directory => Entry::Directory,
                Entry::File(node) => Entry::File(*moved.entry(*node).or_insert_with(|| {
                    next.nodes.push(Node::of(state.nodes[*node].after_power_cut(rng)));
                    next.nodes.len() - 1
                })),
            };
            next.names.insert(name.clone(), entry);
        }
        next.durable = next.names.clone();
        Self(Arc::new(Mutex::new(next)))
    }
}

fn name_of(path: &Path) -> String {
    path.to_str().expect("tests use UTF-8").trim_start_matches('/').to_owned()
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

#[derive(Debug)]
struct Handle {
    disk: Disk,
    node: usize,
}

#[derive(Debug)]
struct Held(Disk);

impl Lock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().is_locked = false;
    }
}

impl FileSystem for Disk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        let name = name_of(path);
        if state.forbidden.contains(&name) {
            return Err(io::Error::from_raw_os_error(EACCES));
        }
        let known = match state.names.get(&name) {
            Some(Entry::File(node)) => Some(*node),
            Some(Entry::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
            None => None,
        };
        let is_new = mode == OpenMode::Create || (mode == OpenMode::Append && known.is_none());
        state.call(if is_new { Kind::Write } else { Kind::Read })?;
        let node = match known {
            Some(node) if !is_new => node,
            None if !is_new => return Err(missing()),
            known => {
                if !matches!(state.names.get(parent(&name)), Some(Entry::Directory))
                    && !parent(&name).is_empty()
                {
                    return Err(missing());
                }
                if known.is_some() {
                    state.change(Change::Remove(name.clone()));
                }
                let node = state.nodes.len();
                state.nodes.push(Node::default());
                state.change(Change::Add(name, Entry::File(node)));
                node
            }
        };
        drop(state);
        Ok(Arc::new(Handle { disk: self.clone(), node }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Kind::Write)?;
        let name = name_of(path);
        let mut missing: Vec<&str> = Vec::new();
        let mut directory = name.as_str();
        while !directory.is_empty() && !state.names.contains_key(directory) {
            missing.push(directory);
            directory = parent(directory);
        }
        for directory in missing.into_iter().rev() {
            state.change(Change::Add(directory.to_owned(), Entry::Directory));
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.state().names.contains_key(&name_of(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.call(Kind::Read)?;
        let prefix = format!("{}/", name_of(path));
        let below = state.names.range(prefix.clone()..).map(|(name, _)| name.as_str());
        let below = below.map_while(|name| name.strip_prefix(&prefix));
        Ok(below.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Kind::Write)?;
        let from = name_of(from);
        let entry = *state.names.get(&from).ok_or_else(missing)?;
        state.change(Change::Rename(from, name_of(to), entry));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Kind::Write)?;
        let name = name_of(path);
        match state.names.get(&name) {
            Some(Entry::File(_)) => {
                state.change(Change::Remove(name));
                Ok(())
            }
            _ => Err(missing()),
        }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Kind::Write)?;
        let name = name_of(path);
        if !state.names.contains_key(&name) {
            return Err(missing());
        }
        let prefix = format!("{name}/");
        let below = state.names.range(prefix.clone()..).map(|(name, _)| name.clone());
        let below: Vec<String> = below.take_while(|n| n.starts_with(&prefix)).collect();
        for name in below.into_iter().rev().chain([name]) {
            state.change(Change::Remove(name));
        }
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Kind::Write)?;
        let entry = *state.names.get(&name_of(from)).ok_or_else(missing)?;
        let to = name_of(to);
        if state.names.contains_key(&to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change(Change::Add(to, entry));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call(Kind::Sync)?;
        let directory = name_of(path);
        if !directory.is_empty() && !state.names.contains_key(&directory) {
            return Err(missing());
        }
        let pending = std::mem::take(&mut state.pending);
        let (done, pending): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|(of, _)| *of == directory);
        state.pending = pending;
        for (_, change) in done {
            apply(&mut state.durable, change);
        }
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state();
        state.call(Kind::Write)?;
        if std::mem::replace(&mut state.is_locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        drop(state);
        Ok(Box::new(Held(self.clone())))
    }
}

impl File for Handle {
    /// A failing append writes a part.
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let called = state.call(Kind::Write);
        let room = state.room(bytes.len());
        let (take, result) = match called {
            Err(_) if state.is_off => (bytes.len() / 3, called),
            Err(_) => (bytes.len() / 2, called),
            Ok(()) if room < bytes.len() => (room, Err(io::Error::from_raw_os_error(ENOSPC))),
            Ok(()) => (bytes.len(), Ok(())),
        };
        state.nodes[self.node].data.extend_from_slice(&bytes[..take.min(room)]);
        result
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call(Kind::Read)?;
        let data = &state.nodes[self.node].data;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = from.checked_add(buffer.len()).and_then(|end| data.get(from..end));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.call(Kind::Read)?;
        Ok(state.nodes[self.node].data.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let called = state.call(Kind::Sync);
        let is_off = state.is_off;
        let node = &mut state.nodes[self.node];
        match &called {
            Ok(()) => node.sync(),
            Err(_) if is_off => {}
            Err(_) => node.fail_sync(),
        }
        called
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call(Kind::Write)?;
        let node = &mut state.nodes[self.node];
        let len = len as usize;
        node.data.resize(len, 0);
        node.common = node.common.min(len);
        for range in &mut node.lost {
            range.end = range.end.min(len);
        }
        node.lost.retain(|r| r.start < r.end);
        Ok(())
    }
}
