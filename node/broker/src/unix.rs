//! Unix sockets: a path that is ours while we listen, and free for the next process after.

use crate::accept::LISTEN_BACKLOG;
use crate::listener;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// A listener whose file goes away with it.
#[derive(Debug)]
pub(crate) struct BoundUnix {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: what is removed must not be another's.
    file: (u64, u64),
}

impl BoundUnix {
    /// Takes the path, over a socket file that a dead process left behind.
    pub(crate) async fn bind(socket: &listener::UnixSocket) -> io::Result<Self> {
        let path = &socket.path;
        check_free(path).await?;
        // Under another name first: at its own it has its permissions from the first moment, and
        // a left-over file is replaced without a moment in which there is none.
        let mut draft = OsString::from(path);
        draft.push(".new");
        let draft = PathBuf::from(draft);
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let unbound = UnixSocket::new_stream()?;
        unbound.bind(&draft)?;
        let listener = unbound.listen(LISTEN_BACKLOG)?;
        let settle = || {
            fs::set_permissions(&draft, Permissions::from_mode(socket.mode))?;
            fs::rename(&draft, path)?;
            id(path)
        };
        let file = settle().inspect_err(|_| {
            // The reason why is reported; this file would only be in the way.
            let _ = fs::remove_file(&draft);
        })?;
        Ok(Self {
            listener,
            path: path.clone(),
            file,
        })
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        let accepted = self.listener.poll_accept(cx);
        accepted.map(|accepted| accepted.map(|(stream, _)| stream))
    }
}

impl Drop for BoundUnix {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|file| file == self.file) {
            // One that stays is replaced by the next process.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Refuses a path that somebody listens on, or that is something else than a socket.
async fn check_free(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => {
            let why = "there is a file that is no socket; remove it or name another path";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            let why = "another process listens on this socket";
            Err(io::Error::new(io::ErrorKind::AddrInUse, why))
        }
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
