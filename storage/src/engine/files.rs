//! How are sealed stripes kept in files?
//!
//! In one directory per day, see [`crate::day::file`]. Stripes are appended to
//! the file that is open for their day; a merge writes a file of its own under
//! a temporary name, and renaming it to `<number>.merged` is the moment it
//! counts: files of the day with smaller numbers are then superseded, and a
//! start removes them.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fs::FileSystem;
use super::sealed::{Damaged, Found, Sealed, Successor, Volume, Volumes};
use crate::day::catalog::{Catalog, Stripe};
use crate::day::day_of;
use crate::day::file::{DayFile, EXTENSION, MERGED_EXTENSION, day_of_directory, directory_of};
use crate::day::stripe::Encoded;

/// Where the days are, in the data directory.
pub(crate) const FOLDER: &str = "days";
/// A file longer than this is closed.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// The files that stripes are appended to, by day.
#[derive(Debug)]
struct Files {
    fs: Arc<dyn FileSystem>,
    root: PathBuf,
    open: HashMap<i64, Writer>,
    next_number: u64,
}

#[derive(Debug)]
struct Writer {
    file: Arc<DayFile>,
    len: u64,
    is_dirty: bool,
    is_torn: bool,
}

/// Reads the headers of all stripes. What is damaged or cannot be read is left
/// out; only a newer version is an error.
pub(crate) fn open(fs: &Arc<dyn FileSystem>, root: &Path) -> io::Result<Found> {
    let mut days = Days::default();
    for directory in fs.list(&root.join(FOLDER))? {
        if let Some(day) = day_of_directory(&directory) {
            days.read(&**fs, root, day, &format!("{FOLDER}/{directory}"))?;
        }
    }
    let next_number = days.last_number.saturating_add(1);
    let (fs, root) = (Arc::clone(fs), root.to_owned());
    let files = Files { fs, root, open: HashMap::new(), next_number };
    let Days { catalog, unread, damages, .. } = days;
    Ok(Found { sealed: Box::new(files), catalog, unread, damages })
}

/// What is found, day by day.
#[derive(Default)]
struct Days {
    catalog: Catalog,
    last_number: u64,
    unread: BTreeSet<i64>,
    damages: Vec<Damaged>,
}

impl Days {
    fn read(
        &mut self,
        fs: &dyn FileSystem,
        root: &Path,
        day: i64,
        directory: &str,
    ) -> io::Result<()> {
        let files = match fs.list(&root.join(directory)) {
            Ok(files) => files,
            Err(e) => {
                self.leave_out(day, directory, format!("the day is left out: {e}"));
                return Ok(());
            }
        };
        let numbered = |file: &String| {
            let (number, extension) = file.split_once('.')?;
            Some((number.parse::<u64>().ok()?, extension.to_owned()))
        };
        let merged = files.iter().filter_map(numbered).filter(|(_, e)| e == MERGED_EXTENSION);
        let merged = merged.map(|(number, _)| number).max().unwrap_or(0);
        // The process that gave the name was perhaps killed before it synced:
        // what is superseded stays until its successor is durable.
        let may_remove = merged == 0 || fs.sync_dir(&root.join(directory)).is_ok();
        for file in &files {
            let Some((number, extension)) = numbered(file) else { continue };
            self.last_number = self.last_number.max(number);
            let name = format!("{directory}/{file}");
            if number < merged || extension == "tmp" {
                // Superseded, or never finished. What cannot be removed now is
                // ignored, and removed by another start.
                if may_remove {
                    let _ = fs.remove_file(&root.join(&name));
                }
                continue;
            }
            if extension != EXTENSION && extension != MERGED_EXTENSION {
                continue;
            }
            match self.scan(fs, root, day, &name, number) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Unsupported => return Err(e),
                Err(e) => self.leave_out(day, &name, format!("its stripes are left out: {e}")),
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, day: i64, name: &str, what: String) {
        self.damages.push(Damaged { file: name.to_owned(), offset: 0, bytes: 0, what });
        self.unread.insert(day);
    }

    /// Adds the stripes of a file.
    fn scan(
        &mut self,
        fs: &dyn FileSystem,
        root: &Path,
        day: i64,
        name: &str,
        number: u64,
    ) -> io::Result<()> {
        let file = Arc::new(DayFile::open(fs, root, name.to_owned(), day, number)?);
        let scan = file.scan()?;
        for found in scan.stripes {
            let volume: Arc<dyn Volume> = Arc::clone(&file) as _;
            let stripe = Stripe::found(&found.header, volume, found.offset, found.header_bytes);
            self.catalog.add(stripe, (*found.header.layout).clone());
        }
        self.damages.extend(scan.damaged.into_iter().map(|(offset, bytes)| Damaged {
            file: name.to_owned(),
            offset,
            bytes,
            what: "no stripe".to_owned(),
        }));
        Ok(())
    }
}

impl Files {
    fn writer(&mut self, day: i64) -> io::Result<&mut Writer> {
        let full = self.open.get(&day).is_some_and(|w| w.len >= MAX_FILE_BYTES && !w.is_dirty);
        if full {
            self.open.remove(&day);
        }
        if !self.open.contains_key(&day) {
            let file = DayFile::create(&*self.fs, &self.root, day, self.next_number, EXTENSION)?;
            self.fs.sync_dir(&self.root.join(directory_of(day)))?;
            self.fs.sync_dir(&self.root.join(FOLDER))?;
            self.next_number += 1;
            let len = DayFile::start_bytes();
            let file = Arc::new(file);
            self.open.insert(day, Writer { file, len, is_dirty: true, is_torn: false });
        }
        Ok(self.open.get_mut(&day).expect("just inserted"))
    }
}

impl Sealed for Files {
    fn append(&mut self, id: u64, encoded: &Encoded) -> io::Result<Stripe> {
        let min_ms = encoded.times.first().copied().unwrap_or(0);
        let writer = self.writer(day_of(min_ms))?;
        if writer.is_torn {
            writer.file.file().truncate(writer.len)?;
            writer.is_torn = false;
        }
        if let Err(e) = writer.file.file().append(&encoded.bytes) {
            writer.is_torn = true;
            return Err(e);
        }
        let offset = writer.len;
        writer.len += encoded.bytes.len() as u64;
        writer.is_dirty = true;
        Ok(Stripe::of(encoded, id, Arc::clone(&writer.file) as _, offset))
    }

    fn sync(&mut self) -> io::Result<Vec<i64>> {
        let mut suspect = Vec::new();
        for (day, writer) in self.open.iter_mut().filter(|(_, w)| w.is_dirty) {
            if writer.file.file().sync().is_err() {
                suspect.push(*day);
            }
            writer.is_dirty = false;
        }
        Ok(suspect)
    }

    fn close(&mut self, day: i64) -> io::Result<()> {
        self.open.remove(&day).map_or(Ok(()), |writer| writer.file.file().sync())
    }

    fn successor(&mut self, day: i64) -> io::Result<Box<dyn Successor>> {
        self.open.remove(&day);
        let number = self.next_number;
        self.next_number += 1;
        let file = DayFile::create(&*self.fs, &self.root, day, number, "tmp")?;
        Ok(Box::new(Merged {
            fs: Arc::clone(&self.fs),
            root: self.root.clone(),
            file: Arc::new(file),
            len: DayFile::start_bytes(),
            is_finished: false,
        }))
    }

    fn retire(&mut self, volumes: Volumes) -> io::Result<()> {
        // Readers that hold the old files keep them open.
        volumes.iter().try_for_each(|v| self.fs.remove_file(&self.root.join(v.name())))
    }

    fn remove_day(&mut self, day: i64) -> io::Result<()> {
        self.open.remove(&day);
        match self.fs.remove_dir_all(&self.root.join(directory_of(day))) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => self.fs.sync_dir(&self.root.join(FOLDER)),
        }
    }

    fn link_to(&mut self, target: &Path, volumes: &[Arc<dyn Volume>]) -> io::Result<()> {
        // New stripes go to new files: the linked ones are never changed.
        self.open.clear();
        let fs = &*self.fs;
        let mut directories = BTreeSet::new();
        for volume in volumes {
            let directory = target.join(directory_of(volume.day()));
            fs.create_dir_all(&directory)?;
            fs.hard_link(&self.root.join(volume.name()), &target.join(volume.name()))?;
            directories.insert(directory);
        }
        directories.iter().try_for_each(|directory| fs.sync_dir(directory))?;
        fs.create_dir_all(&target.join(FOLDER))?;
        fs.sync_dir(&target.join(FOLDER))
    }
}

/// A merged file before it has its name.
#[derive(Debug)]
struct Merged {
    fs: Arc<dyn FileSystem>,
    root: PathBuf,
    file: Arc<DayFile>,
    len: u64,
    is_finished: bool,
}

impl Successor for Merged {
    fn append(&mut self, id: u64, encoded: &Encoded) -> io::Result<Stripe> {
        self.file.file().append(&encoded.bytes)?;
        let offset = self.len;
        self.len += encoded.bytes.len() as u64;
        Ok(Stripe::of(encoded, id, Arc::clone(&self.file) as _, offset))
    }

    fn finish(mut self: Box<Self>) -> io::Result<Arc<dyn Volume>> {
        self.file.file().sync()?;
        let file = self.file.renamed(&*self.fs, &self.root, MERGED_EXTENSION)?;
        self.is_finished = true;
        self.fs.sync_dir(&self.root.join(directory_of(file.day())))?;
        Ok(Arc::new(file))
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = self.fs.remove_file(&self.root.join(self.file.name()));
        }
    }
}
