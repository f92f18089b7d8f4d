//! A disk in memory that knows what of its contents a power cut would leave.
//!
//! It promises what POSIX does and no more: a synced file has its bytes, a synced directory its
//! names. Of everything else, each name, each file's size and each sector (512 bytes) of each
//! write is there or is not, whatever became of the others.

use crate::common::rng::Rng;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

const SECTOR: u64 = 512;

/// A change of the disk, with paths below its root.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    CreateDirectory(PathBuf),
    Create(PathBuf),
    Write {
        path: PathBuf,
        bytes: Vec<u8>,
        at: u64,
    },
    Truncate {
        path: PathBuf,
        bytes: u64,
    },
    Sync(PathBuf),
    SyncDirectory(PathBuf),
    Remove(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Disk {
    /// By inode number; 0 is the root.
    inodes: Vec<Inode>,
    /// Counts changes of names. A rename is one change of two names.
    tickets: u64,
}

#[derive(Debug, Clone)]
enum Inode {
    File(File),
    Directory(Directory),
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    live: Vec<u8>,
    pending: Vec<Edit>,
}

#[derive(Debug, Clone)]
enum Edit {
    Write { bytes: Vec<u8>, at: u64 },
    Truncate(u64),
}

#[derive(Debug, Clone, Default)]
struct Directory {
    durable: BTreeMap<String, usize>,
    live: BTreeMap<String, usize>,
    pending: Vec<Renaming>,
}

/// From now on, `name` is this inode, or nothing.
#[derive(Debug, Clone)]
struct Renaming {
    ticket: u64,
    name: String,
    inode: Option<usize>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self {
            inodes: vec![Inode::Directory(Directory::default())],
            tickets: 0,
        }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        self.tickets += 1;
        match op {
            Op::CreateDirectory(path) => {
                self.add(path, Inode::Directory(Directory::default()));
            }
            Op::Create(path) => match self.find(path) {
                Some(inode) => self.file(inode).edit(Edit::Truncate(0)),
                None => self.add(path, Inode::File(File::default())),
            },
            Op::Write { path, bytes, at } => {
                let (bytes, at) = (bytes.clone(), *at);
                self.file_at(path).edit(Edit::Write { bytes, at });
            }
            Op::Truncate { path, bytes } => self.file_at(path).edit(Edit::Truncate(*bytes)),
            Op::Sync(path) => {
                let file = self.file_at(path);
                file.durable.clone_from(&file.live);
                file.pending.clear();
            }
            Op::SyncDirectory(path) => {
                let inode = self
                    .find(path)
                    .expect("a directory is made before it is synced");
                let directory = self.directory(inode);
                directory.durable.clone_from(&directory.live);
                directory.pending.clear();
            }
            Op::Remove(path) => self.name(path, None),
            Op::Rename { from, to } => {
                let inode = self.find(from);
                self.name(from, None);
                self.name(to, inode);
            }
        }
    }

    /// What is there once the power is back.
    pub(crate) fn cut(&self, rng: &mut Rng) -> Self {
        let mut fates = BTreeMap::new();
        let inodes = self.inodes.iter().map(|inode| match inode {
            Inode::File(file) => Inode::File(File::at_rest(file.cut(rng))),
            Inode::Directory(directory) => {
                let mood = Mood::draw(rng);
                let mut names = directory.durable.clone();
                for renaming in &directory.pending {
                    let kept = fates
                        .entry(renaming.ticket)
                        .or_insert_with(|| mood.keeps(rng));
                    match renaming.inode {
                        _ if !*kept => None,
                        Some(inode) => names.insert(renaming.name.clone(), inode),
                        None => names.remove(&renaming.name),
                    };
                }
                Inode::Directory(Directory {
                    durable: names.clone(),
                    live: names,
                    pending: Vec::new(),
                })
            }
        });
        Self {
            inodes: inodes.collect(),
            tickets: self.tickets,
        }
    }

    /// Makes `root` what this disk looks like to those who use it.
    pub(crate) fn write_to(&self, root: &Path) {
        self.write_inode(0, root);
    }

    fn write_inode(&self, inode: usize, path: &Path) {
        match &self.inodes[inode] {
            Inode::File(file) => std::fs::write(path, &file.live).expect("a writable test folder"),
            Inode::Directory(directory) => {
                std::fs::create_dir_all(path).expect("a writable test folder");
                for (name, inode) in &directory.live {
                    self.write_inode(*inode, &path.join(name));
                }
            }
        }
    }

    fn add(&mut self, path: &Path, inode: Inode) {
        self.inodes.push(inode);
        self.name(path, Some(self.inodes.len() - 1));
    }

    fn name(&mut self, path: &Path, inode: Option<usize>) {
        let ticket = self.tickets;
        let name = path.file_name().expect("a name").to_string_lossy();
        let name = name.into_owned();
        let above = path.parent().expect("a path below the root");
        let above = self
            .find(above)
            .expect("a directory is there before its entries");
        let directory = self.directory(above);
        match inode {
            Some(inode) => directory.live.insert(name.clone(), inode),
            None => directory.live.remove(&name),
        };
        directory.pending.push(Renaming {
            ticket,
            name,
            inode,
        });
    }

    pub(crate) fn find(&self, path: &Path) -> Option<usize> {
        let mut found = 0;
        for part in path.components() {
            let Component::Normal(name) = part else {
                continue;
            };
            let Inode::Directory(directory) = &self.inodes[found] else {
                return None;
            };
            found = *directory.live.get(&*name.to_string_lossy())?;
        }
        Some(found)
    }

    fn file_at(&mut self, path: &Path) -> &mut File {
        let inode = self.find(path);
        self.file(inode.unwrap_or_else(|| panic!("{} is not there", path.display())))
    }

    fn file(&mut self, inode: usize) -> &mut File {
        match &mut self.inodes[inode] {
            Inode::File(file) => file,
            Inode::Directory(_) => panic!("inode {inode} is a directory"),
        }
    }

    fn directory(&mut self, inode: usize) -> &mut Directory {
        match &mut self.inodes[inode] {
            Inode::Directory(directory) => directory,
            Inode::File(_) => panic!("inode {inode} is a file"),
        }
    }
}

/// How much of what was not synced one file or directory keeps.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Nothing,
    Everything,
    Half,
    Nearly,
}

impl Mood {
    const fn draw(rng: &mut Rng) -> Self {
        match rng.below(5) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 => Self::Nearly,
            _ => Self::Half,
        }
    }

    const fn keeps(self, rng: &mut Rng) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Half => rng.one_in(2),
            Self::Nearly => !rng.one_in(6),
        }
    }
}

impl File {
    fn at_rest(bytes: Vec<u8>) -> Self {
        Self {
            durable: bytes.clone(),
            live: bytes,
            pending: Vec::new(),
        }
    }

    fn edit(&mut self, edit: Edit) {
        match &edit {
            Edit::Write { bytes, at } => put(&mut self.live, bytes, *at),
            Edit::Truncate(bytes) => self.live.resize(*bytes as usize, 0),
        }
        self.pending.push(edit);
    }

    fn cut(&self, rng: &mut Rng) -> Vec<u8> {
        let mut content = self.durable.clone();
        if self.pending.is_empty() {
            return content;
        }
        let mood = Mood::draw(rng);
        for edit in &self.pending {
            match edit {
                Edit::Write { bytes, at } => {
                    for (at, sector) in sectors(bytes, *at) {
                        if mood.keeps(rng) {
                            put(&mut content, sector, at);
                        }
                    }
                }
                Edit::Truncate(bytes) if mood.keeps(rng) => content.resize(*bytes as usize, 0),
                Edit::Truncate(_) => {}
            }
        }
        // The size goes its own way: data behind it is lost, and room without data is zeros.
        let shrunk = self.durable.len().min(self.live.len());
        match rng.below(6) {
            0 if content.len() > shrunk => content.truncate(shrunk),
            1 if content.len() < self.live.len() => content.resize(self.live.len(), 0),
            _ => {}
        }
        content
    }
}

fn put(content: &mut Vec<u8>, bytes: &[u8], at: u64) {
    let (from, until) = (at as usize, at as usize + bytes.len());
    if content.len() < until {
        content.resize(until, 0);
    }
    content[from..until].copy_from_slice(bytes);
}

/// The parts of a write that reach the disk each by itself.
fn sectors(bytes: &[u8], at: u64) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = bytes;
    let mut at = at;
    std::iter::from_fn(move || {
        let room = (SECTOR - at % SECTOR) as usize;
        let (sector, behind) = rest.split_at(room.min(rest.len()));
        let here = at;
        (rest, at) = (behind, at + sector.len() as u64);
        (!sector.is_empty()).then_some((here, sector))
    })
}
