//! The pool's socket: unix datagrams, received by a thread of their own (contract `mining.md` §2.1).
//!
//! The pool sends with `MSG_DONTWAIT` and drops on any error, so the only duty of this thread is to empty
//! the kernel's queue. A full hand-over queue spills into the spool.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::spool::Spool;

/// Datagrams that wait between the receiver and the publisher.
pub const QUEUE_CAPACITY: usize = 65_536;
const READ_BUFFER_BYTES: usize = 65_536;
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// How often the path is looked at: somebody may have removed or replaced it.
const PATH_CHECK: Duration = Duration::from_secs(2);
/// Longest wait in one receive, so that a stop is noticed.
const RECEIVE_TIMEOUT: Duration = Duration::from_millis(200);

/// Receives datagrams at `path` until `stop`. Blocks; give it a thread.
pub fn receive(
    path: &Path,
    queue: &mpsc::Sender<Vec<u8>>,
    spool: &Arc<Mutex<Spool>>,
    stop: &CancellationToken,
) {
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    while !stop.is_cancelled() {
        match Bound::bind(path) {
            Ok(Some(bound)) => {
                tracing::info!("receiving pool events at {}", path.display());
                bound.drain(&mut buffer, queue, spool, stop);
            }
            Ok(None) => {
                tracing::info!("another receiver is alive at {}: standing by", path.display());
                wait(PATH_CHECK, stop);
            }
            Err(error) => {
                tracing::error!(%error, "cannot bind {}: is its folder writable?", path.display());
                wait(PATH_CHECK, stop);
            }
        }
    }
}

/// A socket that is ours, as long as the path still leads to it.
struct Bound {
    socket: UnixDatagram,
    path: PathBuf,
    inode: u64,
}

impl Bound {
    /// Binds the path; `None` when another receiver is alive there.
    fn bind(path: &Path) -> io::Result<Option<Self>> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(ErrorKind::AlreadyExists, "a file that is no socket is there"));
            }
            Ok(_) => match UnixDatagram::unbound()?.connect(path) {
                Ok(()) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = UnixDatagram::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        // Best effort: the kernel caps it at net.core.rmem_max.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        socket.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
        let inode = std::fs::symlink_metadata(path)?.ino();
        Ok(Some(Self { socket, path: path.to_owned(), inode }))
    }

    /// Empties the socket until `stop`, or until the path is no longer ours.
    fn drain(
        self,
        buffer: &mut [u8],
        queue: &mpsc::Sender<Vec<u8>>,
        spool: &Arc<Mutex<Spool>>,
        stop: &CancellationToken,
    ) {
        let mut checked = Instant::now();
        loop {
            match self.socket.recv(buffer) {
                Ok(length) => {
                    let datagram = buffer.get(..length).unwrap_or_default().to_vec();
                    match queue.try_send(datagram) {
                        Ok(()) => {}
                        Err(mpsc::error::TrySendError::Full(datagram)) => {
                            spool.lock().unwrap_or_else(PoisonError::into_inner).append(&datagram);
                        }
                        Err(mpsc::error::TrySendError::Closed(_)) => return,
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    // Only an empty socket is left: nothing that was sent before the stop is lost.
                    if stop.is_cancelled() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "receiving failed: binding again");
                    return;
                }
            }
            if checked.elapsed() >= PATH_CHECK {
                checked = Instant::now();
                if !self.is_ours() {
                    tracing::warn!("{} was removed or replaced: binding again", self.path.display());
                    return;
                }
            }
        }
    }

    fn is_ours(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.is_ours() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn wait(time: Duration, stop: &CancellationToken) {
    let until = Instant::now() + time;
    while Instant::now() < until && !stop.is_cancelled() {
        std::thread::sleep(RECEIVE_TIMEOUT);
    }
}
