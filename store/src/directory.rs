//! The data directory itself: may it be used, by whom, and which one is it?

use crate::disk::Disk;
use crate::segment::{Name, Preface};
use crate::{Error, StreamName};
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58F6;

const EPOCH_FILE: &str = "epoch";

pub(crate) fn streams(directory: &Path) -> PathBuf {
    directory.join("streams")
}

/// The right to write in a directory, held by one process at a time.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    /// Closing would not do: a child that another thread is just starting has the file open too,
    /// and the lock with it, until it runs its own program.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the data directory's lock is released by the process's end");
        }
    }
}

/// Makes the directory if need be, and locks it for this process.
pub(crate) fn claim(disk: &Disk, directory: &Path, allow_volatile: bool) -> Result<Lock, Error> {
    let unwritable = |source: io::Error| Error::Unwritable {
        path: directory.to_owned(),
        source: Arc::new(source),
    };
    create_all(disk, directory).map_err(unwritable)?;
    if !allow_volatile && is_volatile(directory)? {
        return Err(Error::Volatile {
            path: directory.to_owned(),
        });
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join("lock"))
        .map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::InUse {
                path: directory.to_owned(),
            });
        }
        // Not for want of rights: the kernel or the file system has no locks.
        Err(TryLockError::Error(source)) => return Err(Error::storage("lock", directory)(source)),
    }
    let lock = Lock(file);
    disk.create_directory(&streams(directory))
        .and_then(|()| disk.sync_directory(directory))
        .and_then(|()| sync_name(disk, directory))
        .map_err(unwritable)?;
    Ok(lock)
}

/// Makes a directory and those above it.
fn create_all(disk: &Disk, directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(above) = above(directory) {
        create_all(disk, above)?;
    }
    disk.create_directory(directory)?;
    sync_name(disk, directory)
}

/// The name of a directory is on the device when this returns, if this user may see to it.
fn sync_name(disk: &Disk, directory: &Path) -> io::Result<()> {
    let Some(above) = above(directory) else {
        return Ok(());
    };
    match disk.sync_directory(above) {
        Err(denied) if denied.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// What a directory is in; a bare name is in the working directory.
fn above(directory: &Path) -> Option<&Path> {
    let above = directory.parent()?;
    Some(if above == Path::new("") {
        Path::new(".")
    } else {
        above
    })
}

fn is_volatile(directory: &Path) -> Result<bool, Error> {
    let found = rustix::fs::statfs(directory)
        .map_err(|errno| Error::storage("look at the file system of", directory)(errno.into()))?;
    // The field's type differs between the architectures we build for.
    let magic = (found.f_type as i64) & 0xFFFF_FFFF;
    Ok(magic == TMPFS_MAGIC || magic == RAMFS_MAGIC)
}

/// Whether nothing can be written any more, as the kernel has it after an error of the disk. A
/// file that is opened for writing tells, and wears no flash.
pub(crate) fn is_read_only(directory: &Path) -> bool {
    let opened = File::options().write(true).open(directory.join("lock"));
    opened.is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

/// The names of the streams that have a directory.
pub(crate) fn list(directory: &Path) -> Result<Vec<StreamName>, Error> {
    let streams = streams(directory);
    let entries = std::fs::read_dir(&streams).map_err(Error::storage("list", &streams))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::storage("list", &streams))?;
        let name = entry.file_name();
        names.extend(name.to_str().and_then(|name| StreamName::new(name).ok()));
    }
    names.sort_unstable();
    Ok(names)
}

/// The epoch of a directory: the one its file names, unless the segments have another. A wrong
/// one would make every frame look damaged, and a file this small has no checksum to tell.
pub(crate) fn epoch(directory: &Path) -> Result<Option<u64>, Error> {
    let text = std::fs::read_to_string(directory.join(EPOCH_FILE)).unwrap_or_default();
    let written = u64::from_str_radix(text.trim(), 16).ok();
    let mut newest: Option<Preface> = None;
    for stream in list(directory)? {
        let Some(preface) = newest_preface(&streams(directory).join(stream.as_str()))? else {
            continue;
        };
        if Some(preface.epoch) == written {
            return Ok(written);
        }
        let sequence = preface.name.sequence;
        if newest
            .as_ref()
            .is_none_or(|newest| sequence > newest.name.sequence)
        {
            newest = Some(preface);
        }
    }
    Ok(newest.map(|preface| preface.epoch).or(written))
}

/// That of the newest segment in a stream's directory that has an intact one.
fn newest_preface(stream: &Path) -> Result<Option<Preface>, Error> {
    for name in Name::list(stream).unwrap_or_default().into_iter().rev() {
        let path = stream.join(name.file());
        let preface = match Preface::read(&path) {
            // Retired by a live node since we listed it.
            Err(_) if !path.exists() => continue,
            read => read?,
        };
        if preface.is_some() {
            return Ok(preface);
        }
    }
    Ok(None)
}

/// The epoch of a directory, made up where there is none yet, and written down where that is not
/// what its file says.
pub(crate) fn establish_epoch(disk: &Disk, directory: &Path) -> Result<u64, Error> {
    let path = directory.join(EPOCH_FILE);
    let known = epoch(directory)?;
    let epoch = match known {
        Some(epoch) => epoch,
        None => u64::from_le_bytes(random()?),
    };
    let text = format!("{epoch:016x}\n");
    match std::fs::read(&path) {
        Ok(found) if found == text.as_bytes() => return Ok(epoch),
        Ok(_) => tracing::warn!(
            path = %path.display(), epoch = text.trim(),
            "the file was damaged, and was made anew from the segments"
        ),
        Err(_) => {}
    }
    let draft = directory.join("epoch.new");
    let file = disk
        .create(&draft)
        .map_err(Error::storage("create", &draft))?;
    disk.write(&file, &draft, text.as_bytes(), 0)
        .and_then(|()| disk.sync(&file, &draft))
        .and_then(|()| disk.rename(&draft, &path))
        .and_then(|()| disk.sync_directory(directory))
        .map_err(Error::storage("write", &path))?;
    Ok(epoch)
}

/// Random bytes of the kernel's. On a box that has only just started, waits until they are, and
/// says so.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let fill = |bytes: &mut [u8], flags| rustix::rand::getrandom(bytes, flags);
    random_from(fill, || {
        tracing::warn!(
            "waiting for the kernel's random number generator, which has gathered too little yet: \
             an id or a key is to be made. It takes seconds to minutes; a hardware generator \
             (rng-tools), or a seed kept over reboots (systemd-random-seed), ends it for good"
        );
    })
}

fn random_from<const N: usize>(
    mut fill: impl FnMut(&mut [u8], GetRandomFlags) -> Result<usize, Errno>,
    waits: impl FnOnce(),
) -> Result<[u8; N], Error> {
    const { assert!(N <= 256, "of this many, no signal cuts off some") }
    let mut bytes = [0; N];
    let source = Path::new("/dev/random");
    let filled = match fill(&mut bytes, GetRandomFlags::NONBLOCK) {
        Err(Errno::AGAIN) => {
            waits();
            retry(|| fill(&mut bytes, GetRandomFlags::empty()))
        }
        filled => filled,
    };
    match filled {
        Ok(count) if count == N => Ok(bytes),
        Ok(_) => Err(Error::storage("read", source)(
            io::ErrorKind::UnexpectedEof.into(),
        )),
        Err(errno) => Err(Error::storage("read", source)(errno.into())),
    }
}

/// Until it is done or fails: who waits may be woken by a signal.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            outcome => return outcome,
        }
    }
}

/// The kernel's id of this boot; 0 where it does not tell.
pub(crate) fn boot_id() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_randomness_yet_is_told_of_and_then_waited_for() {
        let (mut told, mut woken) = (0, false);
        let fill = |bytes: &mut [u8], flags: GetRandomFlags| {
            if flags.contains(GetRandomFlags::NONBLOCK) {
                return Err(Errno::AGAIN);
            }
            if !woken {
                woken = true;
                return Err(Errno::INTR);
            }
            bytes.fill(7);
            Ok(bytes.len())
        };
        let bytes = random_from::<16>(fill, || told += 1).expect("random bytes");
        assert_eq!((bytes, told, woken), ([7; 16], 1, true));
        let filled = random_from::<16>(|bytes, _| Ok(bytes.len()), || told += 1);
        assert!(filled.is_ok() && told == 1, "told of a wait that was none");
        let missing = random_from::<16>(|_, _| Err(Errno::NOSYS), || {});
        let why = missing.expect_err("no such call").to_string();
        assert!(why.contains("/dev/random"), "{why}");
    }
}
