//! The only file that names rustix: what a child imposes on itself before it reads anything.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Ends this process when the other end of standard input is gone, whatever it is doing then.
pub(super) fn end_with_the_parent() -> io::Result<()> {
    let thread = std::thread::Builder::new().name("model-parent".to_owned());
    thread.spawn(|| {
        let stdin = io::stdin();
        // No events asked for: only the hang-up, which always counts, wakes it.
        let mut watched = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::empty())];
        loop {
            match poll(&mut watched, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) if watched[0].revents().is_empty() => {}
                _ => std::process::exit(0),
            }
        }
    })?;
    Ok(())
}

/// Loading is hard work that nobody waits for: whoever takes in data goes first.
pub(super) fn be_nice() {
    const NICE: i32 = 10;
    // Only raised niceness, which nobody is refused; and without it all works as well.
    let _ = setpriority_process(None, NICE);
}

/// How much this process may write to alone, read and limited in bytes.
pub(super) struct Memory {
    statm: File,
    page_bytes: u64,
    /// What was imposed on this process from outside.
    maximum: Option<u64>,
}

impl Memory {
    pub(super) fn open() -> io::Result<Self> {
        Self::of(Path::new("/proc/self"))
    }

    fn of(process: &Path) -> io::Result<Self> {
        let (auxv, statm) = (process.join("auxv"), process.join("statm"));
        let auxiliary = std::fs::read(&auxv).map_err(unknown_to(&auxv))?;
        let page_bytes = page_bytes(&auxiliary)
            .ok_or_else(|| io::Error::other("/proc/self/auxv tells no page size"))?;
        let memory = Self {
            statm: File::open(&statm).map_err(unknown_to(&statm))?,
            page_bytes,
            maximum: getrlimit(Resource::Data).maximum,
        };
        memory.used()?;
        Ok(memory)
    }

    /// The sixth number of `statm`: data and stack.
    pub(super) fn used(&self) -> io::Result<u64> {
        let mut text = [0; 128];
        let length = self.statm.read_at(&mut text, 0)?;
        let pages = std::str::from_utf8(&text[..length])
            .ok()
            .and_then(|text| text.split_ascii_whitespace().nth(5)?.parse::<u64>().ok())
            .ok_or_else(|| io::Error::other("/proc/self/statm is not understood"))?;
        Ok(pages * self.page_bytes)
    }

    /// From here on an allocation fails that would take this process beyond `bytes`.
    pub(super) fn limit(&self, bytes: u64) -> io::Result<()> {
        let current = self.maximum.map_or(bytes, |maximum| maximum.min(bytes));
        self.set(Some(current))
    }

    /// Takes [`Memory::limit`] back.
    pub(super) fn unlimit(&self) -> io::Result<()> {
        self.set(self.maximum)
    }

    fn set(&self, current: Option<u64>) -> io::Result<()> {
        let maximum = self.maximum;
        let limited = setrlimit(Resource::Data, Rlimit { current, maximum });
        limited.map_err(|errno| {
            io::Error::other(format!(
                "the memory of this process cannot be limited (prlimit of RLIMIT_DATA: {errno}), and \
                 models are only run where it can: the kernel or a sandbox around it refuses"
            ))
        })
    }
}

/// What a model is held by comes from the kernel; one that lacks it runs no models.
fn unknown_to<'p>(path: &'p Path) -> impl FnOnce(io::Error) -> io::Error + 'p {
    move |error| {
        let path = path.display();
        io::Error::other(format!(
            "cannot read {path}: {error}; models are only run where /proc is mounted, as their \
             memory is watched there"
        ))
    }
}

/// What the kernel told this process at its start: pairs of a key and a number.
fn page_bytes(auxiliary: &[u8]) -> Option<u64> {
    const AT_PAGESZ: usize = 6;
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| usize::from_ne_bytes(bytes.try_into().expect("chunks of a word"));
    let mut pairs = auxiliary.chunks_exact(2 * WORD);
    let page = pairs.find(|pair| word(&pair[..WORD]) == AT_PAGESZ)?;
    u64::try_from(word(&page[WORD..])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_seen() {
        const BYTES: usize = 64 * 1024 * 1024;
        let memory = Memory::open().unwrap();
        let before = memory.used().unwrap();
        let block = vec![1_u8; BYTES];
        let with = memory.used().unwrap();
        assert!(block.iter().all(|byte| *byte == 1));
        // Other tests of this process come and go meanwhile.
        let grown = i128::from(with) - i128::from(before);
        assert!(grown.abs_diff(BYTES as i128) < BYTES as u128 / 2, "{grown}");
    }
    #[test]
    fn what_the_kernel_does_not_have_is_named() {
        let nowhere = tempfile::tempdir().unwrap();
        let why = Memory::of(nowhere.path()).err().unwrap().to_string();
        assert!(
            why.contains("auxv") && why.contains("/proc is mounted"),
            "{why}"
        );
        let mut memory = Memory::open().unwrap();
        // More than the most there may be: refused, and nothing is changed.
        memory.maximum = Some(1);
        let why = memory.set(Some(2)).unwrap_err().to_string();
        assert!(why.contains("RLIMIT_DATA"), "{why}");
    }
}
